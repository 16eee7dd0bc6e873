"""Scores always show exactly k distinct tokens, the highest; everything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tats_ray.envs.actions import NewIndices, Scores

from tats_ray.core.errors import UsageError

NONE_SHOWN = torch.zeros(2, 12, dtype=torch.bool)
SOME_SHOWN = torch.arange(12).expand(2, -1) < 5
finite = st.floats(-1, 1, width=32)


@given(arrays(np.float32, (2, 12), elements=finite), st.booleans())
def test_scores_show_the_k_highest_of_the_hidden_tokens(
    scores: np.ndarray, are_some_shown: bool
) -> None:
    shown = SOME_SHOWN if are_some_shown else NONE_SHOWN
    chosen = Scores(12, 4).read(scores, shown)
    for row, idx in enumerate(chosen.tolist()):
        assert len(set(idx)) == 4
        left = set(range(12)) - set(idx) - set(shown[row].nonzero().flatten().tolist())
        assert not shown[row, idx].any()
        assert scores[row, idx].min() >= scores[row, list(left)].max()


def test_ties_go_the_same_way_every_time_and_not_to_the_earliest_tokens() -> None:
    flat = np.zeros((2, 144), np.float32)
    hidden = torch.zeros(2, 144, dtype=torch.bool)
    first, second = (Scores(144, 16).read(flat, hidden) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first[0], first[1])
    assert {int(token) // 36 for token in first[0]} == {0, 1, 2, 3}  # all four time slots


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_with_the_clip(bad: float) -> None:
    scores = np.zeros((2, 12), np.float32)
    scores[1, 3] = bad
    with pytest.raises(UsageError, match="NaN or infinite scores for clip 1"):
        Scores(12, 4).read(scores, NONE_SHOWN)


@pytest.mark.parametrize("shape", [(12,), (1, 12), (2, 11), (2, 13), (2, 12, 1)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected \(2, 12\): one score per token"):
        Scores(12, 4).read(np.zeros(shape), NONE_SHOWN)


def test_index_of_a_visible_token_is_refused_by_name() -> None:
    actions = np.array([[5, 6], [7, 4]])
    with pytest.raises(UsageError, match="token 4 of clip 1, which is visible already"):
        NewIndices(12, 2).read(actions, SOME_SHOWN)
