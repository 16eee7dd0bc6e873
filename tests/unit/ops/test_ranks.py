"""Rank correlations and explained variance against closed forms and second formulations."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.ops.ranks import average_ranks, binned, explained_share, kendall, spearman

numbers = st.lists(st.integers(0, 5), min_size=3, max_size=9)


def test_equal_values_share_the_mean_of_their_places() -> None:
    found = average_ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0]))
    assert found.tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_without_ties_both_equal_their_textbook_forms(order: tuple[int, ...]) -> None:
    one, other = np.arange(4.0), np.array(order, dtype=float)
    squares = float(((one - other) ** 2).sum())
    assert spearman(one, other) == pytest.approx(1 - 6 * squares / (4 * (4**2 - 1)))
    swaps = sum(order[i] > order[j] for i in range(4) for j in range(i + 1, 4))
    assert kendall(one, other) == pytest.approx(1 - 2 * swaps / 6)


@given(numbers, st.randoms(use_true_random=False))
def test_only_order_counts_and_reversal_changes_the_sign(values: list[int], rng: object) -> None:
    one = np.array(values, dtype=float)
    other = one.copy()
    rng.shuffle(other)  # type: ignore[attr-defined]
    for measure in (spearman, kendall):
        found = measure(one, other)
        if math.isnan(found):
            assert len(set(values)) == 1
            continue
        assert -1 - 1e-12 <= found <= 1 + 1e-12
        assert measure(np.exp(one), other) == pytest.approx(found)
        assert measure(one, -other) == pytest.approx(-found)
        assert measure(other, one) == pytest.approx(found)
        assert measure(one, one) == pytest.approx(1)


@given(numbers)
def test_spearman_is_the_correlation_of_ranks_as_numpy_computes_it(values: list[int]) -> None:
    one = np.array(values, dtype=float)
    other = (one * 7 + np.arange(len(one))) % 5
    if len(set(one)) > 1 and len(set(other)) > 1:
        expected = np.corrcoef(average_ranks(one), average_ranks(other))[0, 1]
        assert spearman(one, other) == pytest.approx(expected)


def test_kendall_of_a_table_with_ties_worked_by_hand() -> None:
    # Pairs (1,1) (2,1) (2,2) (3,3): 4 agree, 0 disagree, 1 tied in each of the two.
    assert kendall(np.array([1.0, 2, 2, 3]), np.array([1.0, 1, 2, 3])) == pytest.approx(4 / 5)


def test_explained_share_is_one_for_groups_and_their_own_values_and_zero_for_noise() -> None:
    assert explained_share([0, 0, 1, 1], np.array([1.0, 1.0, 5.0, 5.0])) == pytest.approx(1)
    # Between groups 0: epsilon squared would be negative, and is cut.
    assert explained_share([0, 0, 1, 1], np.array([1.0, 2.0, 1.0, 2.0])) == 0
    # F = 9 with (1, 2) degrees: epsilon squared = (F - 1) / (F + 2).
    values = np.array([0.0, 2.0, 3.0 * math.sqrt(2), 2 + 3.0 * math.sqrt(2)])
    assert explained_share([0, 0, 1, 1], values) == pytest.approx(8 / 11)
    assert math.isnan(explained_share([0, 1, 2], np.array([1.0, 2.0, 3.0])))
    assert math.isnan(explained_share([0, 0, 1], np.array([1.0, 1.0, 1.0])))


def test_few_values_are_groups_and_many_are_cut_into_bins_of_equal_counts() -> None:
    assert binned([10, 5, 10]) == ([1, 0, 1], ["5", "10"])
    assert binned(["b", "a"]) == ([1, 0], ["a", "b"])
    groups, names = binned([float(v) for v in range(9)])
    assert [groups.count(g) for g in range(3)] == [3, 3, 3]
    assert names == ["0 to 2", "3 to 5", "6 to 8"]
