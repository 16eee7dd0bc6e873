"""From error to reward, and to a clip's return."""

from __future__ import annotations

import torch

from tats_ray.ops.rewards import (
    REWARDS,
    clip_error,
    clip_return,
    negative_clip_error,
    token_error,
)

ERROR = torch.tensor([[0.0, 1.0, 0.0, 5.0], [2.0, 0.0, 0.0, 4.0]])  # 0 where visible
VISIBLE = torch.tensor([[0, 2], [2, 1]])


def test_each_hidden_token_earns_its_own_error() -> None:
    assert torch.equal(token_error(ERROR, VISIBLE), ERROR)


def test_every_token_of_a_clip_earns_the_mean_error_of_its_hidden_tokens() -> None:
    assert torch.equal(clip_error(ERROR, VISIBLE), torch.tensor([[3.0] * 4, [3.0] * 4]))
    assert torch.equal(negative_clip_error(ERROR, VISIBLE), torch.tensor([[-3.0] * 4, [-3.0] * 4]))


def test_return_of_a_clip_is_its_mean_reward_over_hidden_tokens_whatever_the_reward() -> None:
    signs = {"token_error": 1, "clip_error": 1, "negative_clip_error": -1}
    assert set(REWARDS) == set(signs)
    for name, sign in signs.items():
        found = clip_return(REWARDS[name](ERROR, VISIBLE), VISIBLE)
        assert torch.equal(found, sign * torch.tensor([3.0, 3.0])), name


def test_reward_on_visible_tokens_does_not_enter_the_return() -> None:
    reward = torch.tensor([[100.0, 1.0, -100.0, 3.0]])
    assert clip_return(reward, torch.tensor([[0, 2]])).item() == 2.0
