"""From a configuration to the parts of a run: the same parts in one process or many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch.utils.data import DataLoader

from tats_ray.config.schema import ClusterConfig, DataConfig, RunConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.data.dataset import Clip, ClipBatch, ClipDataset, collate
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.motion import token_motion
from tats_ray.data.sampler import ClipSampler
from tats_ray.learning.evaluation import MOVING_SHARE, Evaluator, ValidationSet
from tats_ray.models.zoo import num_visible, token_grid
from tats_ray.ops.rewards import find_reward


@dataclass(frozen=True)
class Lists:
    """The videos of a run, checked."""

    train: list[VideoEntry]
    val: list[VideoEntry]


def read_lists(data: DataConfig) -> Lists:
    """Read and check the lists that a configuration names.

    Raises:
        UsageError: for what is wrong with a list, its first bad line named.
    """

    def read(path: str) -> list[VideoEntry]:
        return read_list(path, root=data.root or None, num_classes=data.num_classes or None)

    return Lists(read(data.train_list), read(data.val_list) if data.val_list else [])


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
        motion_grid=motion_grid,
    )


def wants_motion(config: RunConfig) -> bool:
    """Whether the run needs the true motion of its training clips."""
    return config.sampler.name == "oracle" or "motion" in find_reward(config.reward).needs


class ClipLoader:
    """One rank's batches of any epoch, from any batch of it on."""

    def __init__(
        self,
        dataset: ClipDataset,
        sampler: ClipSampler,
        *,
        num_workers: int,
        cluster: ClusterConfig,
    ) -> None:
        self.dataset = dataset
        self._sampler = sampler
        self.steps_per_epoch, self.slots = sampler.steps_per_epoch, sampler.slots
        self._loader: DataLoader[Clip] = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=cluster.use_gpu,
            persistent_workers=num_workers > 0,
            timeout=cluster.timeout_s if num_workers else 0,
        )

    def __call__(self, epoch: int, first_step: int) -> Iterator[ClipBatch]:
        self._sampler.set_epoch(epoch, first_step)
        return iter(self._loader)

    def keys(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of the clips of one step."""
        self._sampler.set_epoch(epoch, step)
        return list(chain.from_iterable(islice(self._sampler, len(self.slots))))


class Batches(ClipLoader):
    """Batches of pre-training."""

    def __init__(
        self,
        config: RunConfig,
        entries: list[VideoEntry],
        *,
        rank: int = 0,
        world_size: int = 1,
        num_slots: int = 0,
    ) -> None:
        grid = token_grid(config.data, config.model) if wants_motion(config) else None
        dataset = clip_dataset(config.data, entries, seed=config.seed, motion_grid=grid)
        sampler = ClipSampler(
            num_clips=len(entries),
            batch_size=config.clips_per_step,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            num_slots=num_slots,
        )
        super().__init__(
            dataset, sampler, num_workers=config.data.num_workers, cluster=config.cluster
        )


def validation_set(config: RunConfig, grid: TokenGrid, entries: list[VideoEntry]) -> ValidationSet:
    """The first `eval.num_clips` readable videos of a list, their middle, centred.

    Where a true motion mask lies beside every one of them, tokens that move are marked.
    """
    dataset = clip_dataset(config.data, entries[: config.eval.num_clips], is_centered=True)
    batch = collate([dataset[0, index] for index in range(len(dataset))])
    motion = [dataset.motion(index) for index in batch.index.tolist()]
    known = [mask for mask in motion if mask is not None]
    if len(known) < len(motion):
        return ValidationSet(batch.pixels, None)
    shares = torch.stack([torch.from_numpy(token_motion(mask, grid)) for mask in known])
    return ValidationSet(batch.pixels, shares >= MOVING_SHARE, shares)


def evaluator(config: RunConfig, entries: list[VideoEntry]) -> Evaluator | None:
    """The measure of a run; None where there is no validation list."""
    if not entries:
        return None
    grid = token_grid(config.data, config.model)
    return Evaluator(
        validation_set(config, grid, entries),
        num_visible(config.sampler, grid),
        batch_size=config.optim.batch_size,
        precision=config.loop.precision,
    )
