"""Numbers that tell whether a sampler looks at what moves, and whether it has collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tats_ray.core.arrays import Bool, Float
from tats_ray.core.words import counted


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


def effective_count(amounts: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """Over how many of N places an amount is spread: the exponential of its entropy.

    N where all are equal, 1 where one place has it all.
    """
    share = amounts.double() / amounts.double().sum(1, keepdim=True).clamp_min(1e-300)
    return torch.special.entr(share).sum(1).exp()


def overlap(first: Bool[Tensor, "B N"], second: Bool[Tensor, "B N"]) -> float:
    """Share of the first selection that is in the second too; K/N for independent uniform ones."""
    return float((first & second).sum() / first.sum())


def collapse_signs(
    measures: Mapping[str, float], *, num_visible: int, num_tokens: int
) -> Sequence[str]:
    """Why these measures look like a policy that has collapsed; empty when they do not.

    A policy that shows the one thing that matters in each clip is sure of itself, and healthy. A
    collapsed one shows the same tokens whatever the clip, or has stopped exploring while other
    tokens carry error. The evidence: overlap between clips against overlap of two draws for one
    clip, and tokens in play against tokens that carry error.

    Args:
        measures: those of a measurement, without `eval/`; the ones that are missing say nothing.
    """
    signs = []
    by_clip, by_draw = measures.get("clip_overlap", 0.0), measures.get("draw_overlap", 1.0)
    chance = num_visible / num_tokens
    if by_clip - chance > max(0.4, 0.8 * (by_draw - chance)):
        signs.append(
            f"it shows the same places whatever the clip: different clips share {by_clip:.0%} of "
            f"the visible tokens, and two draws for one clip {by_draw:.0%}"
        )
    in_play, carrying = measures["effective_tokens"], measures.get("error_tokens", math.inf)
    if in_play < min(num_visible, carrying / 2):
        error = f", while {carrying:.0f} carry the error" if carrying < math.inf else ""
        signs.append(
            f"only {counted(round(in_play), 'token')} in play, fewer than the "
            f"{num_visible} shown{error}"
        )
    return signs
