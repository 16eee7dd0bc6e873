"""Learning rate and weight decay of a probe, chosen on a held-out part of the training list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from tats_ray.core.arrays import Int
from tats_ray.core.errors import NonFiniteError, UsageError
from tats_ray.core.seeds import stream
from tats_ray.evaluation.probe_training import Examples, Probe
from tats_ray.ops.scores import ranks

HELD_OUT_SHARE = 0.2
"""Of each class of the training list."""


def hold_out(
    labels: Int[Tensor, " n"], *, seed: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " m"]]:
    """Places of the rest and of a fifth of each class, at least one where the class has two.

    Raises:
        UsageError: when every class has one video only.
    """
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        count = max(round(len(own) * HELD_OUT_SHARE), 1) if len(own) > 1 else 0
        order = torch.randperm(len(own), generator=stream(seed, "hold_out", label))
        is_held[own[order[:count]]] = True
    if not is_held.any():
        raise UsageError(
            "no class has two training videos, so none can be held out to choose by; "
            "give one learning rate and one weight decay"
        )
    return (~is_held).nonzero().flatten(), is_held.nonzero().flatten()


@dataclass(frozen=True, slots=True)
class HeadTrial:
    """How one head of the grid did on the held-out part."""

    base_lr: float
    weight_decay: float
    top1: float
    loss: float


def try_all(probe: Probe, train: Examples, held: Examples) -> list[HeadTrial]:
    """Train the whole grid in one pass and measure it on what it has not seen."""
    probe.fit(train)
    trials = []
    for (lr, decay), scores in zip(probe.grid, probe.scores(held.features).mean(2), strict=True):
        right = float((ranks(scores.nan_to_num(-1.0), held.labels) == 0).double().mean())
        loss = -scores.gather(1, held.labels.unsqueeze(1)).clamp_min(1e-12).log().mean()
        trials.append(HeadTrial(lr, decay, right, float(loss)))
    return trials


def best(trials: Sequence[HeadTrial]) -> HeadTrial:
    """Highest accuracy, then lowest loss, then first.

    Raises:
        NonFiniteError: when all have diverged.
    """
    sound = [trial for trial in trials if isfinite(trial.loss)]
    if not sound:
        raise NonFiniteError("every head of the grid has diverged; use lower learning rates")
    return max(sound, key=lambda trial: (trial.top1, -trial.loss))
