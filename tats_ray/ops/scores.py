"""From class scores of views to accuracies; float64, ties go to the lower class id."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tats_ray.core.arrays import Float, Int

_ROWS_AT_ONCE = 256
"""Queries whose cosines with the whole bank are in memory together."""


def merge_views(
    scores: Float[Tensor, "R C"], video: Int[Tensor, " R"], view: Int[Tensor, " R"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n C"]]:
    """Video ids, ascending, and the mean of their views' scores.

    A (video, view) that comes more than once counts once: distributed samplers pad their last
    batch with repeats. The order of the rows changes nothing, not even the last bit.
    """
    keys, owner = torch.stack([video, view], 1).unique(dim=0, return_inverse=True)
    places = torch.arange(len(owner), device=owner.device)
    rows = places.new_full((len(keys),), len(owner)).scatter_reduce(0, owner, places, "amin")
    videos, group = keys[:, 0].unique(return_inverse=True)
    total = torch.zeros(len(videos), scores.shape[1], dtype=torch.float64, device=scores.device)
    total.index_add_(0, group, scores[rows].double())
    return videos, total / group.bincount().unsqueeze(1)


def ranks(scores: Float[Tensor, "n C"], labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """How many classes are put before the right one."""
    own = scores.gather(1, labels.unsqueeze(1))
    before = torch.arange(scores.shape[1], device=scores.device) < labels.unsqueeze(1)
    return ((scores > own) | ((scores == own) & before)).sum(1)


def confusion_matrix(
    predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], num_classes: int
) -> Int[Tensor, "C C"]:
    """Videos of the row's class that were taken for the column's."""
    pairs = labels * num_classes + predicted
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def mean_class_accuracy(confusion: Int[Tensor, "C C"]) -> float:
    """Mean share of right answers over the classes that have videos."""
    videos = confusion.sum(1)
    shares = confusion.diagonal().double() / videos
    return float(shares[videos > 0].mean())


def weighted_f1(confusion: Int[Tensor, "C C"]) -> float:
    """Mean F1 of the classes, weighted by how often they are the true one."""
    right, true = confusion.diagonal().double(), confusion.sum(1)
    f1 = 2 * right / (true + confusion.sum(0)).clamp(min=1)
    return float((f1 * true).sum() / true.sum())


def nearest_neighbour_scores(
    query: Float[Tensor, "n D"],
    bank: Float[Tensor, "m D"],
    bank_labels: Int[Tensor, " m"],
    *,
    num_classes: int,
    k: int,
    temperature: float,
) -> Float[Tensor, "n C"]:
    """Votes of the `k` nearest by cosine, weighted by exp(cosine / temperature), rows sum to one.

    Source: Caron et al. (2021, DINO), as Wu et al. (2018). Of equally near ones the first counts.
    """
    bank = normalize(bank.double(), dim=1)
    scores = []
    for part in normalize(query.double(), dim=1).split(_ROWS_AT_ONCE):
        near = (part @ bank.T).sort(dim=1, descending=True, stable=True)
        weight = (near.values[:, :k] / temperature).softmax(1)
        votes = weight.new_zeros(len(part), num_classes)
        scores.append(votes.scatter_add_(1, bank_labels[near.indices[:, :k]], weight))
    return torch.cat(scores)
