"""Statistics of a few seeds: interquartile means and their confidence intervals."""

from __future__ import annotations

import math

import numpy as np

from tats_ray.core.arrays import Float
from tats_ray.core.seeds import derive

CONFIDENCE = 0.95
_NUM_RESAMPLES = 10_000


def interquartile_mean(values: Float[np.ndarray, "*R S"]) -> Float[np.ndarray, "*R"]:
    """Mean over the last axis without the lowest and the highest quarter, rounded down.

    With fewer than four values nothing is left out.
    """
    cut = values.shape[-1] // 4
    inner = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    return np.asarray(inner.mean(-1))


def resampled_means(values: Float[np.ndarray, " S"], *name: str | int) -> Float[np.ndarray, " R"]:
    """Interquartile means of bootstrap samples: as many values, drawn with replacement.

    Args:
        name: of the random stream. Groups that are compared are resampled each by itself
            (stratified), under different names.
    """
    rng = np.random.default_rng(derive(0, "bootstrap", *name))
    drawn = rng.integers(len(values), size=(_NUM_RESAMPLES, len(values)))
    return interquartile_mean(values[drawn])


def interval(resamples: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """The middle 95 % of bootstrap results."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return float(low), float(high)


def can_claim(first: int, second: int) -> bool:
    """Whether so many seeds can tell two groups apart at all.

    Where they do not differ, chance alone puts all values of one group below the other's in 2 of
    every C(first + second, first) cases. That must be rarer than the intervals' 5 %; of equal
    groups, four seeds each are the least.
    """
    return 2 / math.comb(first + second, first) < 1 - CONFIDENCE


def standard_error(values: Float[np.ndarray, " S"]) -> float:
    """Of the mean; NaN for a single value."""
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1)) / math.sqrt(len(values))
