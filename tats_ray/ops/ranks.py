"""Do two measures put things in the same order, and which field decides a measure?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tats_ray.core.arrays import Float

_NUM_BINS = 3


def average_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1 for the smallest; equal values share the mean of their places."""
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return np.asarray(below + (equal + 1) / 2)


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation of the ranks; NaN where one side is all equal.

    Source: Spearman (1904).
    """
    one, other = (average_ranks(v) - (len(v) + 1) / 2 for v in (first, second))
    norm = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / norm if norm > 0 else math.nan


def kendall(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Tau-b: pairs in the same order minus those in the other, ties corrected; NaN as above.

    Source: Kendall (1945).
    """
    agreement, untied_first, untied_second = 0, 0, 0
    for i, j in combinations(range(len(first)), 2):
        one, other = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
        agreement += int(one * other)
        untied_first += int(one != 0)
        untied_second += int(other != 0)
    norm = math.sqrt(untied_first * untied_second)
    return agreement / norm if norm > 0 else math.nan


def explained_share(groups: Sequence[int], values: Float[np.ndarray, " n"]) -> float:
    """Share of the variance of `values` that lies between groups, 0 to 1.

    Epsilon squared: what groups of this size explain by chance is taken off. NaN where the values
    do not vary or every value is a group of its own.

    Source: Kelley (1935).
    """
    labels = np.asarray(groups)
    kinds = np.unique(labels)
    total = float(((values - values.mean()) ** 2).sum())
    free = len(values) - len(kinds)
    if total == 0 or free < 1:
        return math.nan
    inside = sum(
        float(((values[labels == k] - values[labels == k].mean()) ** 2).sum()) for k in kinds
    )
    return max(0.0, 1 - inside / free / (total / (len(values) - 1)))


def binned(values: Sequence[object], num_bins: int = _NUM_BINS) -> tuple[list[int], list[str]]:
    """A group for each value, and names of the groups, in order.

    Few different values, or words, are groups as they are; other numbers are cut into bins of
    about equal counts.
    """
    different = list(dict.fromkeys(values))
    numbers = [v for v in different if isinstance(v, (int, float)) and not isinstance(v, bool)]
    is_number = len(numbers) == len(different)
    if not is_number or len(different) <= num_bins + 1:
        kinds = sorted(numbers) if is_number else sorted(different, key=str)
        names = [f"{kind:g}" if isinstance(kind, float) else str(kind) for kind in kinds]
        return [kinds.index(v) for v in values], names  # type: ignore[arg-type]
    array = np.array([float(v) for v in values])  # type: ignore[arg-type]
    cuts = np.quantile(array, np.linspace(0, 1, num_bins + 1)[1:-1])
    groups = np.searchsorted(cuts, array, side="left")
    names = [
        f"{array[groups == g].min():.3g} to {array[groups == g].max():.3g}"
        for g in range(num_bins)
        if (groups == g).any()
    ]
    order = {int(g): place for place, g in enumerate(np.unique(groups))}
    return [order[int(g)] for g in groups], names
