"""What the checkers of three libraries say of the environments: nothing. Warnings are errors."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from tats_ray.envs import SEQUENTIAL_TOKEN_SELECTION, TOKEN_SELECTION

both = pytest.mark.parametrize("env_id", [TOKEN_SELECTION, SEQUENTIAL_TOKEN_SELECTION])


@both
def test_gymnasium_has_no_objection(env_id: str) -> None:
    check_env(gymnasium.make(env_id, render_mode="rgb_array").unwrapped)


@both
def test_stable_baselines3_has_no_objection(env_id: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(gymnasium.make(env_id, render_mode="rgb_array").unwrapped)


@both
def test_torchrl_has_no_objection_to_either_form(env_id: str) -> None:
    envs = pytest.importorskip("torchrl.envs")
    from torchrl.envs.utils import check_env_specs

    check_env_specs(envs.GymEnv(env_id))
    vector = envs.GymWrapper(gymnasium.make_vec(env_id, num_envs=3))
    check_env_specs(vector)
    assert vector.rollout(5, break_when_any_done=False).shape == (3, 5)
