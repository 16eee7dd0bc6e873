"""From error to reward, and to a clip's return."""

from __future__ import annotations

import pytest
import torch

from tats_ray.core.errors import UsageError
from tats_ray.ops import rewards
from tats_ray.ops.rewards import (
    REWARDS,
    clip_error,
    clip_return,
    find_reward,
    negative_clip_error,
    register_reward,
    token_ease,
    token_error,
)

ERROR = torch.tensor([[0.0, 1.0, 0.0, 5.0], [2.0, 0.0, 0.0, 4.0]])  # 0 where visible
VISIBLE = torch.tensor([[0, 2], [2, 1]])
GIVEN = {
    "random_error": torch.tensor([3.5, 2.0]),
    "motion": torch.tensor([[0.5, 9.0, 1.0, 9.0], [9.0, 0.0, 0.25, 9.0]]),
}


def test_each_hidden_token_earns_its_own_error() -> None:
    assert torch.equal(token_error(ERROR, VISIBLE), ERROR)


def test_every_token_of_a_clip_earns_the_mean_error_of_its_hidden_tokens() -> None:
    assert torch.equal(clip_error(ERROR, VISIBLE), torch.tensor([[3.0] * 4, [3.0] * 4]))
    assert torch.equal(negative_clip_error(ERROR, VISIBLE), torch.tensor([[-3.0] * 4, [-3.0] * 4]))


def test_return_of_a_clip_is_its_mean_reward_over_hidden_tokens_whatever_the_reward() -> None:
    expected = {
        "token_error": [3.0, 3.0],
        "token_ease": [(3 / 4 + 3 / 8) / 2, (3 / 5 + 3 / 7) / 2],
        "clip_error": [3.0, 3.0],
        "negative_clip_error": [-3.0, -3.0],
        "error_reduction": [0.5, -1.0],  # random masks leave 3.5 and 2
        "motion_share": [0.75, 0.125],  # of the two visible tokens
    }
    assert set(REWARDS) == set(expected)
    for name, returns in expected.items():
        found = clip_return(REWARDS[name](ERROR, VISIBLE, **GIVEN), VISIBLE)
        assert found.tolist() == pytest.approx(returns), name


def test_ease_falls_with_the_error_and_stays_positive_where_nothing_errs() -> None:
    ease = token_ease(ERROR, VISIBLE)
    assert ease[0, 3] < ease[0, 1] < 1
    assert torch.equal(token_ease(torch.zeros(1, 4), VISIBLE[:1]), torch.ones(1, 4))


def test_reward_on_visible_tokens_does_not_enter_the_return() -> None:
    reward = torch.tensor([[100.0, 1.0, -100.0, 3.0]])
    assert clip_return(reward, torch.tensor([[0, 2]])).item() == 2.0


def test_unknown_reward_is_refused_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'eror_reduction' .* mean error_reduction\?; known: tok"):
        find_reward("eror_reduction")
    with pytest.raises(UsageError, match=r"'speed' is not known; known: token_error, token_ease"):
        find_reward("speed")


def test_registered_reward_is_found_by_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "REWARDS", dict(REWARDS))
    register_reward("half", lambda error, idx, *, motion: motion / 2, "motion")
    assert torch.equal(find_reward("half")(ERROR, VISIBLE, **GIVEN), GIVEN["motion"] / 2)
    with pytest.raises(UsageError, match="'half' is registered already"):
        register_reward("half", token_error)
