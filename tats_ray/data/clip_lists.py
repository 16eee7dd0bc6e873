"""The video lists of a configuration, and their clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tats_ray.config.finetune_schema import LabelledDataConfig
from tats_ray.config.schema import DataConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.data.cache.frame_cache import open_cache
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.readers.jumping import JUMPING, why_missing


@dataclass(frozen=True)
class Lists:
    """The videos of a run, checked."""

    train: list[VideoEntry]
    val: list[VideoEntry]


def read_lists(data: DataConfig | LabelledDataConfig) -> Lists:
    """Read and check the lists that a configuration names; with labels, where it needs them.

    Raises:
        UsageError: for what is wrong with a list, its first bad line named, a decoder that this
            machine does not have, or a cache that does not hold the training videos as they are.
    """
    for reader in JUMPING:
        if data.decoder == reader and (missing := why_missing(reader)):
            raise UsageError(f"data.decoder {reader}: {missing}")

    def read(path: str) -> list[VideoEntry]:
        needs_labels = isinstance(data, LabelledDataConfig)
        classes = data.num_classes or None
        return read_list(path, root=data.root, num_classes=classes, needs_labels=needs_labels)

    lists = Lists(read(data.train_list), read(data.val_list) if data.val_list else [])
    if cache := open_cache(data.cache):
        cache.check(lists.train, data.train_list, data.root)
    return lists


def cache_in_words(data: DataConfig | LabelledDataConfig) -> str:
    """A warning where frames of the cache are smaller than clips; empty where they are not."""
    cache = open_cache(data.cache)
    if cache is None or cache.settings.short_side >= data.image_size:
        return ""
    return (
        f"frames in data.cache have a short side of {cache.settings.short_side} px and are "
        f"enlarged to data.image_size {data.image_size}; make a cache with a larger --short-side"
    )


def shared_in_words(
    train: Sequence[VideoEntry], val: Sequence[VideoEntry], lists: tuple[object, object], what: str
) -> str:
    """A warning where videos are in both lists; empty where none is.

    Args:
        lists: the files of training and validation.
        what: is measured on them.
    """
    known = {entry.path for entry in train}
    if not (shared := sum(entry.path in known for entry in val)):
        return ""
    are = "is" if shared == 1 else "are"
    return (
        f"{shared} of the {counted(len(val), 'video')} in {lists[1]} {are} in {lists[0]}, too; "
        f"the {what} on them says nothing about new videos"
    )


def clip_dataset(
    data: DataConfig,
    entries: list[VideoEntry],
    *,
    seed: int = 0,
    is_centered: bool = False,
    motion_grid: TokenGrid | None = None,
) -> ClipDataset:
    """Training clips of a list; centred ones, to measure and to look at, have no randomness."""
    return ClipDataset(
        entries=entries,
        num_frames=data.num_frames,
        image_size=data.image_size,
        stride=data.stride,
        min_frames=data.min_frames,
        seed=seed,
        augment="center" if is_centered else data.augment,
        backend=data.decoder,
        cache_mb=0 if is_centered else data.cache_mb,
        cache=None if is_centered else open_cache(data.cache),
        motion_grid=motion_grid,
    )
