"""From a configuration to the parts of a run: the same parts in one process or many."""

from __future__ import annotations

from tats_ray.config.schema import RunConfig
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.clip_loader import ClipLoader, ClipSource
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.sampler import ClipSampler
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.models.zoo import token_grid
from tats_ray.ops.rewards import find_reward


def wants_motion(config: RunConfig) -> bool:
    """Whether the run needs the true motion of its training clips."""
    return find_sampler(config.sampler).needs_motion or "motion" in find_reward(config.reward).needs


def training_clips(config: RunConfig, entries: list[VideoEntry]) -> ClipDataset:
    """The clips of a list, with their true motion where the run needs it."""
    grid = token_grid(config.data, config.model) if wants_motion(config) else None
    return clip_dataset(config.data, entries, seed=config.seed, motion_grid=grid)


class Batches(ClipLoader):
    """Batches of pre-training; from `source`, where they are not decoded here."""

    def __init__(
        self,
        config: RunConfig,
        entries: list[VideoEntry],
        *,
        rank: int = 0,
        world_size: int = 1,
        num_slots: int = 0,
        source: ClipSource | None = None,
    ) -> None:
        sampler = ClipSampler(
            num_clips=len(entries),
            batch_size=config.clips_per_step,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            num_slots=num_slots,
            clips_per_open=config.data.clips_per_open,
        )
        super().__init__(
            training_clips(config, entries),
            sampler,
            num_workers=config.data.num_workers,
            cluster=config.cluster,
            source=source,
        )
