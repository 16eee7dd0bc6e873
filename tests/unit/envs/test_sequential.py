"""Rounds: their rewards add up to the one-shot reward, and no token is chosen twice."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from tats_ray.envs import SEQUENTIAL_TOKEN_SELECTION, TOKEN_SELECTION

from tats_ray.core.errors import UsageError
from tats_ray.ops.rewards import REWARDS

BATCH = 3


@pytest.mark.parametrize("reward", list(REWARDS))
@pytest.mark.parametrize("num_rounds", [1, 2, 8])
def test_rewards_of_the_rounds_sum_to_the_one_shot_reward_of_the_selection(
    reward: str, num_rounds: int
) -> None:
    options = {"num_envs": BATCH, "reward": reward, "action": "indices", "autoreset": False}
    once = gymnasium.make_vec(TOKEN_SELECTION, **options)
    rounds = gymnasium.make_vec(SEQUENTIAL_TOKEN_SELECTION, num_rounds=num_rounds, **options)
    random = np.random.default_rng(0)
    selection = np.stack([random.permutation(144)[:16] for _ in range(BATCH)])
    once.reset(seed=0)
    _, whole, *_ = once.step(selection)
    rounds.reset(seed=0)
    paid, ends = np.zeros(BATCH), []
    for part in np.split(selection, num_rounds, axis=1):
        _, gain, terminated, truncated, _ = rounds.step(part)
        paid += gain
        ends.append(terminated.all())
        assert not truncated.any()
    np.testing.assert_allclose(paid, whole, atol=2e-6)
    assert ends == [False] * (num_rounds - 1) + [True]


def test_scores_never_choose_a_visible_token_again_though_they_do_not_change() -> None:
    env = gymnasium.make(SEQUENTIAL_TOKEN_SELECTION)
    scores = np.random.default_rng(1).uniform(-1, 1, 144)
    _, start = env.reset(seed=0)
    shown = []
    for _ in range(4):
        *_, info = env.step(scores)
        shown.append(set(np.flatnonzero(info["token_error"] == 0)))
    best = list(np.argsort(-scores))
    assert shown == [set(best[:count]) for count in (4, 8, 12, 16)]
    assert info["motion_share"] == pytest.approx(start["token_motion"][best[:16]].mean())


def test_index_chosen_in_an_earlier_round_is_refused_and_the_episode_goes_on() -> None:
    env = gymnasium.make(SEQUENTIAL_TOKEN_SELECTION, action="indices")
    env.reset(seed=0)
    env.step(np.array([1, 2, 3, 4]))
    with pytest.raises(UsageError, match="token 3 of clip 0, which is visible already"):
        env.step(np.array([5, 6, 3, 7]))
    _, _, terminated, _, info = env.step(np.array([5, 6, 8, 7]))
    assert not terminated
    assert (info["token_error"] == 0).sum() == 8


def test_budget_that_does_not_divide_into_rounds_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="16 does not divide into 3 .* can be 1, 2, 4, 8, 16"):
        gymnasium.make(SEQUENTIAL_TOKEN_SELECTION, num_rounds=3)
