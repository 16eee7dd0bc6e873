"""Clips by key: what is shown is a pure function of (seed, epoch, index), on every machine."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tats_ray.core.arrays import Bool, Float, Int, UInt8
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.core.words import counted
from tats_ray.data.cache.frame_cache import FrameCache
from tats_ray.data.decode import Backend, one_video, read_frames
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import motion_path, read_motion, token_motion
from tats_ray.data.transforms import (
    CropBox,
    center_crop_box,
    crop_and_resize,
    crop_mask,
    dense_start,
    multi_scale_crop_box,
    random_resized_crop_box,
    resize,
    sample_dense,
)

Key = tuple[int, int]
"""(epoch, index into the list)."""
Augment = Literal["multi_scale_crop", "random_resized_crop", "center"]
_MAX_TRIES = 8


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, before it is batched."""

    pixels: UInt8[Tensor, "C F H W"]
    label: int
    """Class id; -1 where the list has none."""
    index: int
    """The list entry that is shown: another than asked for, when that one cannot be read."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Videos before it that cannot be read, with reasons; it is shown in their place."""
    motion: Float[Tensor, " N"] | None = None
    """Share of each token's pixels that truly move; only where it was asked for."""

    @property
    def is_replaced(self) -> bool:
        return bool(self.unreadable)


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Clips of one step of one rank."""

    pixels: UInt8[Tensor, "B C F H W"]
    label: Int[Tensor, " B"]
    index: Int[Tensor, " B"]
    num_replaced: int
    """How many clips stand in for one that cannot be read."""
    motion: Float[Tensor, "B N"] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Videos that cannot be read, with reasons."""

    def pin_memory(self) -> ClipBatch:
        """The same batch in page-locked memory; DataLoader calls this."""
        return replace(self, pixels=self.pixels.pin_memory())


def collate(clips: list[Clip]) -> ClipBatch:
    """Puts clips of one size into a batch."""
    motion = [clip.motion for clip in clips if clip.motion is not None]
    return ClipBatch(
        pixels=torch.stack([clip.pixels for clip in clips]),
        label=torch.tensor([clip.label for clip in clips]),
        index=torch.tensor([clip.index for clip in clips]),
        num_replaced=sum(clip.is_replaced for clip in clips),
        motion=torch.stack(motion) if len(motion) == len(clips) else None,
        unreadable={path: why for clip in clips for path, why in clip.unreadable.items()},
    )


class ClipDataset(Dataset[Clip]):
    """Decodes, cuts and resizes the clip of a key (epoch, index).

    With `augment="center"` the middle of the video is shown, centred, whatever the epoch. A video
    that cannot be read is replaced by the next of the list and marked as such. Videos are opened
    and closed within a call, so that the data set can be sent to any process.

    Args:
        entries: the list, see `read_list`.
        num_frames: frames in a clip.
        image_size: height and width of a clip, pixels.
        stride: from one frame of the clip to the next, in frames of the video.
        seed: root seed of the run.
        augment: which part is shown; "random_resized_crop" also mirrors, which swaps left and
            right in classes that know them.
        backend: video library, see `read_frames`.
        cache_mb: decoded videos that each process may keep, MB; it never changes a clip.
        cache: frames on disk, read instead of the videos.
        motion_grid: tokens whose true motion goes with every clip.

    Raises:
        VideoError: from a read, when eight videos in a row cannot be read.
        UsageError: when there is nothing in the list.
    """

    def __init__(
        self,
        *,
        entries: Sequence[VideoEntry],
        num_frames: int = 16,
        image_size: int = 224,
        stride: int = 2,
        min_frames: int = 1,
        seed: int = 0,
        augment: Augment = "multi_scale_crop",
        backend: Backend = "auto",
        cache_mb: float = 0,
        cache: FrameCache | None = None,
        motion_grid: TokenGrid | None = None,
    ) -> None:
        if not entries or min(num_frames, image_size, stride) < 1:
            raise UsageError(
                f"cannot cut clips of {num_frames} frames, {image_size} px, stride {stride} from "
                f"{counted(len(entries), 'video')}; all must be at least 1"
            )
        self.entries = list(entries)
        self.num_frames = num_frames
        self.image_size = image_size
        self.stride = stride
        self.min_frames = min_frames
        self.seed = seed
        self.augment: Augment = augment
        self.motion_grid = motion_grid
        self._videos = _VideoCache(backend, int(cache_mb * 1e6))
        self._stored = cache

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, key: Key) -> Clip:
        epoch, wanted = key
        if not 0 <= wanted < len(self):
            raise IndexError(f"index {wanted} of a list of {counted(len(self), 'video')}")
        failures: list[VideoError] = []
        for step in range(min(_MAX_TRIES, len(self))):
            index = (wanted + step) % len(self)
            try:
                with one_video(self.entries[index].path):
                    pixels = self._pixels(epoch, index)
            except VideoError as error:
                failures.append(error)
                continue
            return self._clip(pixels, epoch, index, failures)
        first, *others = failures
        if not others:
            raise first
        raise VideoError(
            first.path,
            f"{first.reason}; and the next {len(others)} of the list cannot be read either",
        )

    def __getitems__(self, keys: Sequence[Key]) -> list[Clip]:
        """The clips of a batch. Neighbours that show one video have it opened once."""
        clips: list[Clip] = []
        for index, group in groupby(keys, key=lambda key: key[1]):
            epochs = [epoch for epoch, _ in group]
            clips += self._together(epochs, index) or [self[epoch, index] for epoch in epochs]
        return clips

    def _together(self, epochs: Sequence[int], index: int) -> list[Clip]:
        """Clips of one video, from one opening; none where there is one, or anything goes wrong."""
        if len(epochs) < 2 or self._stored is not None:
            return []
        choices = [self._choose(epoch, index) for epoch in epochs]
        totals: set[int] = set()

        def choose(total: int) -> list[int]:
            totals.add(total)
            return [frame for choice in choices for frame in choice(total)]

        entry = self.entries[index]
        try:
            with one_video(entry.path):
                frames = self._videos.read(entry, choose)
                clips = frames.reshape(len(epochs), -1, *frames.shape[1:])
                pixels = [
                    self._cropped(clip, epoch, index)
                    for clip, epoch in zip(clips, epochs, strict=True)
                ]
        except VideoError:
            return []  # each for itself: some of them may be sound
        if len(totals) > 1:
            return []  # the file ends early, which is nothing to those clips that end before
        return [
            self._clip(shown, epoch, index) for shown, epoch in zip(pixels, epochs, strict=True)
        ]

    def motion(self, index: int, epoch: int | None = None) -> Bool[np.ndarray, "F H W"] | None:
        """Which pixels of clip `index` truly move, under the same frames and crop; None if unknown.

        Raises:
            UsageError: without an epoch, unless `augment` is "center": only then all are the same.
        """
        if epoch is None and self.augment != "center":
            raise UsageError(
                f"true motion needs an epoch, or augment 'center', not {self.augment!r}"
            )
        whole = read_motion(self.entries[index].path)
        if whole is None:
            return None
        frames = whole[self._choose(epoch or 0, index)(len(whole))]
        box = self._crop_box(epoch or 0, index, whole.shape[2], whole.shape[1])
        return crop_mask(frames, box, self.image_size)

    def _token_motion(self, epoch: int, index: int) -> Float[Tensor, " N"] | None:
        if self.motion_grid is None:
            return None
        motion = self.motion(index, epoch)
        if motion is None:
            raise UsageError(
                f"{self.entries[index].path} has no {motion_path(self.entries[index].path).name} "
                "beside it, the true motion; `tats data synth` writes both"
            )
        return torch.from_numpy(token_motion(motion, self.motion_grid))

    def _pixels(self, epoch: int, index: int) -> UInt8[Tensor, "C F H W"]:
        choose = self._choose(epoch, index)
        if self._stored is not None:
            clip = self._stored.read(self.entries[index], choose)
            box = self._crop_box(epoch, index, clip.video.width, clip.video.height)
            return resize(clip.cut(box), self.image_size, is_flipped=box.is_flipped)
        return self._cropped(self._videos.read(self.entries[index], choose), epoch, index)

    def _cropped(
        self, frames: UInt8[np.ndarray, "F H W 3"], epoch: int, index: int
    ) -> UInt8[Tensor, "C F h w"]:
        box = self._crop_box(epoch, index, frames.shape[2], frames.shape[1])
        return crop_and_resize(frames, box, self.image_size)

    def _clip(
        self,
        pixels: UInt8[Tensor, "C F H W"],
        epoch: int,
        index: int,
        failures: Sequence[VideoError] = (),
    ) -> Clip:
        label = self.entries[index].label
        return Clip(
            pixels,
            -1 if label is None else label,
            index,
            {failure.path: failure.reason for failure in failures},
            self._token_motion(epoch, index),
        )

    def _choose(self, epoch: int, index: int) -> Callable[[int], list[int]]:
        """Picks the frames of a clip; pure, as `read_frames` wants it: its stream starts anew."""

        def choose(total: int) -> list[int]:
            if total < self.min_frames:
                reason = (
                    f"has {counted(total, 'frame')}, fewer than data.min_frames {self.min_frames}"
                )
                raise VideoError(self.entries[index].path, reason)
            generator = None
            if self.augment != "center":
                generator = stream(self.seed, "clip", epoch, index, "frames")
            start = dense_start(total, self.num_frames, self.stride, generator)
            return sample_dense(total, self.num_frames, self.stride, start)

        return choose

    def _crop_box(self, epoch: int, index: int, width: int, height: int) -> CropBox:
        if self.augment == "center":
            return center_crop_box(width, height)
        generator = stream(self.seed, "clip", epoch, index, "crop")
        if self.augment == "multi_scale_crop":
            return multi_scale_crop_box(width, height, self.image_size, generator)
        return random_resized_crop_box(width, height, generator)


class _VideoCache:
    """`read_frames` with a memory: whole decoded videos, the least recently used leave first.

    Each process has its own. A copy that is sent to another process is empty.
    """

    def __init__(self, backend: Backend, max_bytes: int) -> None:
        self._backend: Backend = backend
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[str, tuple[int, UInt8[np.ndarray, "F H W 3"]]] = OrderedDict()

    def __reduce__(self) -> tuple[type[_VideoCache], tuple[Backend, int]]:
        return type(self), (self._backend, self._max_bytes)

    def read(
        self, video: VideoEntry, choose: Callable[[int], list[int]]
    ) -> UInt8[np.ndarray, "F H W 3"]:
        if video.path not in self._kept and not self._load(video):
            return read_frames(video.path, choose, backend=self._backend, look=video.probe)
        self._kept.move_to_end(video.path)
        claimed, frames = self._kept[video.path]
        # As read_frames does: first by the number of frames that the file claims to have.
        chosen = choose(claimed)
        return frames[chosen if max(chosen) < len(frames) else choose(len(frames))]

    def _load(self, video: VideoEntry) -> bool:
        """Decodes all of a video into the cache; False where it does not fit, or has a defect."""
        if self._max_bytes == 0:
            return False
        claimed: list[int] = []

        def everything(total: int) -> list[int]:
            claimed.append(total)
            return list(range(total))

        try:
            info = video.probe()
            if info.num_frames * info.height * info.width * 3 > self._max_bytes:
                return False
            frames = read_frames(video.path, everything, backend=self._backend, look=video.probe)
        except VideoError:
            return False  # the part that a clip needs may be sound
        self._kept[video.path] = claimed[0], frames
        self._num_bytes += frames.nbytes
        while self._num_bytes > self._max_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._num_bytes -= oldest.nbytes
        return video.path in self._kept
