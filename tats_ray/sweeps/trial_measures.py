"""Measures of a trial: one as in the paper, and two that are fair to all samplers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tats_ray.checkpoints.restore import restore
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.config.schema import DataConfig, RunConfig
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.encoder import open_encoder
from tats_ray.evaluation.features import FeatureRequest, FrozenEncoder, compute
from tats_ray.evaluation.mask_evaluator import Evaluator, validation_set
from tats_ray.evaluation.probe_training import Examples
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.zoo import num_visible, token_grid
from tats_ray.ops.scores import nearest_neighbour_scores, ranks
from tats_ray.view.tracking import read_metrics

TEMPERATURE = 0.07
"""Of the neighbours' weights, as in `tats probe knn`."""
_TAIL = 0.05


def train_error(run: Path) -> float:
    """Mean reconstruction error of the last twentieth of the steps, one epoch at least.

    Under the masks that the run trained with, as in the paper; so it cannot compare samplers or
    mask ratios. Records are weighted by the steps of that part which they cover.
    """
    records = [record for record in read_metrics(run) if "mae/loss" in record]
    last = records[-1]["step"]
    first = last - max(_TAIL * last, last / max(records[-1]["epoch"], 1))
    total = weight = before = 0.0
    for record in records:
        covered = min(record["step"] - before, record["step"] - first)
        if covered > 0:
            total += record["mae/loss"] * covered
            weight += covered
        before = record["step"]
    return total / weight


def val_error(run: Path) -> float | None:
    """The last validation error under one fixed random mask; None where none was measured."""
    found = [record["eval/error"] for record in read_metrics(run) if "eval/error" in record]
    return found[-1] if found else None


def error_at(run: str, mask_ratio: float, device: str) -> float:
    """Validation error of the newest checkpoint, under the fixed random mask of a given ratio.

    The run's own was measured with as many tokens as its sampler shows.
    """
    found = restore(run)
    config, grid = found.config, found.grid
    count = grid.num_visible(mask_ratio)
    size, precision = config.optim.batch_size, config.loop.precision
    clips = validation_set(config, grid, read_lists(config.data).val)
    evaluator = Evaluator(clips, count, batch_size=size, precision=precision)
    return evaluator.measure(found.mae.to(device), FixedPolicy(grid))["error"]


def is_own(config: RunConfig, mask_ratio: float) -> bool:
    """Whether the run itself measured under the random mask of this ratio."""
    grid = token_grid(config.data, config.model)
    return num_visible(config.sampler, grid) == grid.num_visible(mask_ratio)


def has_labels(data: DataConfig) -> bool:
    """Whether the classes of both lists are known: neighbours need them."""
    lists = read_lists(data)
    return all(entries and entries[0].label is not None for entries in (lists.train, lists.val))


def knn_accuracy(run: str, data: DataConfig, k: int, device: str) -> float:
    """Top-1 of the nearest neighbours among the training videos' features, one view each.

    Args:
        run: folder of the run; its newest checkpoint is measured.
        k: neighbours; where there are fewer videos, all of them.
    """
    source, lists = open_encoder(run, EncoderOptions(device=device)), read_lists(data)
    train, val = (_examples(source, part, data.num_workers) for part in (lists.train, lists.val))
    scores = nearest_neighbour_scores(
        val.features[:, 0],
        train.features[:, 0],
        train.labels,
        num_classes=1 + int(max(train.labels.max(), val.labels.max())),
        k=min(k, len(train)),
        temperature=TEMPERATURE,
    )
    return float((ranks(scores, val.labels) < 1).double().mean())


def _examples(source: FrozenEncoder, entries: Sequence[VideoEntry], num_workers: int) -> Examples:
    asked = FeatureRequest(source=source, entries=entries, plan=ViewPlan())
    found = compute(asked, num_workers=num_workers, say=lambda text: None)
    labels = [entries[at].label for at in found.index.tolist()]
    return Examples(found.values, torch.tensor(labels))
