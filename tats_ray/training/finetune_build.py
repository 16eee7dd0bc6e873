"""From a fine-tuning configuration to the parts of a run: the same parts in one process or many."""

from __future__ import annotations

from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.data.clip_loader import ClipLoader
from tats_ray.data.labelled import LabelledClips
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.sampler import ClipSampler
from tats_ray.data.views import ViewDataset, ViewPlan


def finetune_batches(
    config: FinetuneConfig, entries: list[VideoEntry], *, rank: int = 0, world_size: int = 1
) -> ClipLoader:
    """One rank's batches; a video's copies follow each other at the distance of the videos."""
    sampler = ClipSampler(
        num_clips=len(entries),
        batch_size=config.videos_per_step,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        repeats=config.augment.repeats,
    )
    return ClipLoader(
        LabelledClips(entries, config.data, config.augment, seed=config.seed),
        sampler,
        num_workers=config.data.num_workers,
        cluster=config.cluster,
    )


def view_dataset(config: FinetuneConfig, entries: list[VideoEntry], plan: ViewPlan) -> ViewDataset:
    """The same views of every video every time."""
    data = config.data
    return ViewDataset(
        entries,
        plan,
        num_frames=data.num_frames,
        image_size=data.image_size,
        stride=data.stride,
        min_frames=data.min_frames,
        backend=data.decoder,
    )
