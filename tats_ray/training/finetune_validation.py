"""Accuracy of a classifier during training, on one centred clip of each video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.utils.data import DataLoader

from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.views import VideoViews, ViewPlan
from tats_ray.training.finetune_build import view_dataset
from tats_ray.training.finetune_loop import ClassifierLearner


def measured(config: FinetuneConfig, entries: Sequence[VideoEntry]) -> Sequence[VideoEntry]:
    """Those of a validation list that are used: `eval.num_videos` of them."""
    return entries[: config.eval.num_videos or None]


def count_right(
    learner: ClassifierLearner,
    config: FinetuneConfig,
    entries: Sequence[VideoEntry],
    *,
    rank: int = 0,
    world_size: int = 1,
    tell_unreadable: Callable[[Mapping[str, str]], None] = lambda videos: None,
) -> tuple[float, float]:
    """Videos named rightly, and videos that could be read, in a rank's share of the list.

    Args:
        tell_unreadable: gets those that could not be read, with reasons.
    """
    entries = measured(config, entries)[rank::world_size]
    if not entries:
        return 0.0, 0.0
    plan = ViewPlan(1, 1, config.data.sampling)
    loader: DataLoader[VideoViews] = DataLoader(
        view_dataset(config, list(entries), plan),
        batch_size=None,
        num_workers=config.data.num_workers,
        timeout=config.cluster.timeout_s if config.data.num_workers else 0,
    )
    right, num = 0.0, 0
    clips, labels, unreadable = [], [], {}
    for at, video in enumerate(loader, start=1):
        if video.pixels is None:
            unreadable[entries[video.index].path] = video.reason
        else:
            clips.append(video.pixels)
            labels.append(entries[video.index].label)
        if clips and (len(clips) == config.optim.batch_size or at == len(entries)):
            said = learner.logits(torch.cat(clips)).argmax(1).cpu()
            right += float((said == torch.tensor(labels)).sum())
            num += len(clips)
            clips, labels = [], []
    tell_unreadable(unreadable)
    return right, float(num)
