"""Interquartile means and their intervals, against sums by hand and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tats_ray.ops.statistics import (
    can_claim,
    interquartile_mean,
    interval,
    resampled_means,
    standard_error,
)


def test_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    values = np.array([9.0, 1.0, 100.0, 3.0, -50.0, 5.0, 4.0, 2.0])
    assert interquartile_mean(values) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([7.0, -3.0, 1.0, 90.0, 2.0])) == (1 + 2 + 7) / 3


def test_interquartile_mean_of_fewer_than_four_values_is_their_mean() -> None:
    assert interquartile_mean(np.array([1.0, 2.0, 30.0])) == 11.0
    assert interquartile_mean(np.array([5.0])) == 5.0


def test_interquartile_mean_takes_the_last_axis() -> None:
    rows = np.array([[1.0, 2.0, 3.0, 100.0], [-9.0, 0.0, 4.0, 6.0]])
    np.testing.assert_array_equal(interquartile_mean(rows), [2.5, 2.0])


def test_resampled_means_have_the_law_of_two_values_drawn_with_replacement() -> None:
    found, counts = np.unique(resampled_means(np.array([0.0, 1.0]), "law"), return_counts=True)
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(counts / counts.sum(), [0.25, 0.5, 0.25], atol=0.02)


def test_resampled_means_repeat_under_the_same_name_only() -> None:
    values = np.arange(9.0)
    np.testing.assert_array_equal(resampled_means(values, "a"), resampled_means(values, "a"))
    assert (resampled_means(values, "a") != resampled_means(values, "b")).any()


def test_interval_is_the_middle_of_the_resamples() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


@pytest.mark.parametrize("num_seeds", [8, 16])
def test_interval_holds_the_truth_and_a_difference_of_equal_groups_holds_zero(
    num_seeds: int,
) -> None:
    """Nominal is 0.95; of 200 trials at 0.93, fewer than 0.88 come up once in 200 times."""
    rng = np.random.default_rng(0)
    holds_truth, holds_zero = [], []
    for trial in range(200):
        one, other = (rng.normal(3.0, 2.0, num_seeds) for _ in range(2))
        first, second = (resampled_means(v, trial, k) for k, v in (("A", one), ("B", other)))
        low, high = interval(first)
        holds_truth.append(low <= 3.0 <= high)
        low, high = interval(first - second)
        holds_zero.append(low <= 0.0 <= high)
    assert 0.88 <= np.mean(holds_truth) < 1.0
    assert 0.88 <= np.mean(holds_zero) < 1.0


def test_three_seeds_each_cannot_tell_groups_apart_but_four_can() -> None:
    # 2 of the C(6, 3) = 20 ways to share out six values separate them; 2 of C(8, 4) = 70.
    assert not can_claim(3, 3)
    assert can_claim(4, 4)
    assert can_claim(3, 5)
    assert not can_claim(1, 30)
    assert can_claim(1, 40)


def test_standard_error_is_the_deviation_over_the_root_of_the_count() -> None:
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert standard_error(np.array([2.0, 4.0, 6.0])) == pytest.approx(2 / math.sqrt(3))
    assert math.isnan(standard_error(np.array([2.0])))
