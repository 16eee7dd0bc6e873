"""Numbers that tell whether a sampler looks at what moves, and whether it has collapsed."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.core.arrays import Bool, Float


def chance_ratio(chosen: Bool[Tensor, "B N"], marked: Bool[Tensor, "B N"]) -> float:
    """How much likelier a chosen token is to be marked than any token; 1 is chance.

    NaN when nothing is marked.
    """
    return float((chosen & marked).sum() / chosen.sum() / (marked.sum() / marked.numel()))


def ranking_auc(score: Float[Tensor, "B N"], marked: Bool[Tensor, "B N"]) -> float:
    """Chance that a marked token outranks an unmarked one of the same clip, mean over clips.

    Ties count half (Mann-Whitney); clips without both kinds are left out. NaN if none is left.
    """
    values = []
    for row, is_marked in zip(score.double(), marked, strict=True):
        positive, negative = row[is_marked], row[~is_marked].sort().values
        if len(positive) and len(negative):
            below = torch.searchsorted(negative, positive)
            not_above = torch.searchsorted(negative, positive, right=True)
            values.append((below + not_above).double().mean() / (2 * len(negative)))
    return float(torch.stack(values).mean()) if values else float("nan")


def overlap(first: Bool[Tensor, "B N"], second: Bool[Tensor, "B N"]) -> float:
    """Share of the first selection that is in the second too; K/N for independent uniform ones."""
    return float((first & second).sum() / first.sum())
