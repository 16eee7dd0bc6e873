"""Does a sampler look at what moves? Ranking against a count of pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tats_ray.ops.measures import (
    chance_ratio,
    collapse_signs,
    effective_count,
    overlap,
    ranking_auc,
)


def pairs_won(score: Tensor, marked: Tensor) -> float:
    """Mean over clips of: share of (marked, unmarked) pairs in which the marked one is ahead."""
    clips = []
    for row, is_marked in zip(score.tolist(), marked.tolist(), strict=True):
        pairs = [
            1.0 if a > b else 0.5 if a == b else 0.0
            for a, of_a in zip(row, is_marked, strict=True)
            if of_a
            for b, of_b in zip(row, is_marked, strict=True)
            if not of_b
        ]
        if pairs:
            clips.append(sum(pairs) / len(pairs))
    return sum(clips) / len(clips) if clips else math.nan


@given(data=st.data(), clips=st.integers(1, 3), tokens=st.integers(1, 9))
def test_ranking_auc_is_the_share_of_pairs_won_with_ties_counted_half(
    data: st.DataObject, clips: int, tokens: int
) -> None:
    def table(elements: st.SearchStrategy[float] | st.SearchStrategy[bool]) -> list[list[float]]:
        row = st.lists(elements, min_size=tokens, max_size=tokens)
        return data.draw(st.lists(row, min_size=clips, max_size=clips))

    score = torch.tensor(table(st.sampled_from([-1.0, 0.0, 0.5, 2.0])))  # ties are common
    marked = torch.tensor(table(st.booleans()))
    assert ranking_auc(score, marked) == pytest.approx(pairs_won(score, marked), nan_ok=True)


def test_ranking_auc_is_1_for_the_right_order_0_for_the_reverse_and_half_for_no_opinion() -> None:
    marked = torch.tensor([[True, False, True, False]])
    right = torch.tensor([[3.0, 1.0, 4.0, 2.0]])
    assert ranking_auc(right, marked) == 1.0
    assert ranking_auc(-right, marked) == 0.0
    assert ranking_auc(torch.zeros(1, 4), marked) == 0.5
    assert math.isnan(ranking_auc(right, torch.ones(1, 4).bool()))


def test_chance_ratio_compares_the_share_among_the_chosen_with_the_share_among_all() -> None:
    marked = torch.tensor([[True, True, False, False, False, False, False, False]])
    chosen = torch.tensor([[True, False, True, False, False, False, False, False]])
    assert chance_ratio(chosen, marked) == pytest.approx((1 / 2) / (2 / 8))
    assert chance_ratio(torch.ones(1, 8).bool(), marked) == pytest.approx(1.0)
    assert chance_ratio(~marked, marked) == 0.0
    assert math.isnan(chance_ratio(chosen, torch.zeros(1, 8).bool()))


def test_overlap_is_the_share_of_the_first_that_is_in_the_second() -> None:
    first = torch.tensor([[True, True, False, False], [True, False, True, False]])
    assert overlap(first, first) == 1.0
    assert overlap(first, ~first) == 0.0
    assert overlap(first, torch.tensor([[True, False, False, False]] * 2)) == 0.5


def test_overlap_of_independent_uniform_draws_is_k_over_n() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2000, 20, generator=generator).argsort(1) < 5 for _ in range(2))
    assert overlap(first, second) == pytest.approx(5 / 20, abs=0.01)


def test_effective_count_is_n_for_equal_parts_and_one_for_a_single_part() -> None:
    amounts = torch.tensor([[2.0, 2.0, 2.0, 2.0], [0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    assert effective_count(amounts).tolist() == pytest.approx([4.0, 1.0, 2.0])


HEALTHY = {"effective_tokens": 60.0, "error_tokens": 230.0, "clip_overlap": 0.2}
"""Of 256 tokens, of which 25 are shown."""


@pytest.mark.parametrize(
    "measures",
    [
        HEALTHY,
        # Sure of the few tokens that matter in each clip, as on Pong.
        {
            "effective_tokens": 12.0,
            "error_tokens": 18.0,
            "clip_overlap": 0.25,
            "draw_overlap": 0.87,
        },
        # Uniform draws overlap by chance, however many tokens are shown.
        {"effective_tokens": 256.0, "clip_overlap": 25 / 256, "draw_overlap": 25 / 256},
    ],
)
def test_a_policy_that_shows_what_matters_has_no_sign_of_collapse(
    measures: dict[str, float],
) -> None:
    assert collapse_signs(measures, num_visible=25, num_tokens=256) == []


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (
            {"clip_overlap": 0.85, "draw_overlap": 0.9},
            "it shows the same places whatever the clip: different clips share 85% of the "
            "visible tokens, and two draws for one clip 90%",
        ),
        (
            {"effective_tokens": 7.4},
            "only 7 tokens in play, fewer than the 25 shown, while 230 carry the error",
        ),
        (
            {"effective_tokens": 7.4, "error_tokens": 16.0},
            "only 7 tokens in play, fewer than the 25 shown, while 16 carry the error",
        ),
    ],
)
def test_each_sign_of_a_collapse_is_named_by_itself(change: dict[str, float], sign: str) -> None:
    assert list(collapse_signs({**HEALTHY, **change}, num_visible=25, num_tokens=256)) == [sign]


def test_half_of_the_tokens_shown_is_no_collapse_where_chance_gives_as_much() -> None:
    uniform = {"effective_tokens": 256.0, "clip_overlap": 0.52, "draw_overlap": 0.5}
    assert collapse_signs(uniform, num_visible=128, num_tokens=256) == []


def test_measures_of_older_runs_do_without_the_tokens_that_carry_error() -> None:
    (sign,) = collapse_signs({"effective_tokens": 7.4}, num_visible=25, num_tokens=256)
    assert sign == "only 7 tokens in play, fewer than the 25 shown"
