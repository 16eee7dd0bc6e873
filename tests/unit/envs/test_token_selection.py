"""The environment's contract: one-step episodes, exact rewards, and nothing repaired silently."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import tats_ray.envs
import torch
from gymnasium import spaces
from tats_ray.envs import TOKEN_SELECTION, TokenSelectionEnv, TokenSelectionVectorEnv
from torch import Tensor

from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.ops.rewards import REWARDS, clip_return
from tats_ray.training.mae_learner import MAELearner

NUM_ENVS, NUM_VISIBLE = 2, 8


class Frozen:
    """A scorer that does not learn."""

    def __init__(self, mae: MaskedAutoencoder) -> None:
        self.mae = mae

    def embed(self, clips: Tensor) -> Tensor:
        return self.mae.embed(clips)

    @torch.no_grad()
    def score(self, clips: Tensor, visible_idx: Tensor) -> Tensor:
        error: Tensor = self.mae(clips, visible_idx).error
        return error


@pytest.fixture
def make(mae: MaskedAutoencoder, grid: TokenGrid) -> Any:
    def build(**changes: Any) -> TokenSelectionVectorEnv:
        settings = {"scorer": Frozen(mae), "grid": grid, "width": 16, "num_visible": NUM_VISIBLE}
        return TokenSelectionVectorEnv(NUM_ENVS, **{**settings, **changes})

    return build


def actions(seed: int = 0) -> Tensor:
    noise = torch.rand(NUM_ENVS, 32, generator=torch.Generator().manual_seed(seed))
    return noise.argsort(1)[:, :NUM_VISIBLE]


def test_reset_shows_the_tokens_and_step_ends_every_episode(
    make: Any, mae: MaskedAutoencoder, clips: Tensor
) -> None:
    env = make(arrays="torch")
    observation, info = env.reset(options={"clips": clips})
    assert info == {}
    assert torch.equal(observation, mae.embed(clips))
    after, reward, terminated, truncated, info = env.step(actions())
    assert torch.equal(after, observation)
    assert terminated.tolist() == [True, True]
    assert truncated.tolist() == [False, False]
    assert reward.shape == (NUM_ENVS,)
    assert set(info) == {"token_reward", "token_error"}


ON_ERROR_ALONE = ("token_error", "clip_error", "negative_clip_error")


@pytest.mark.parametrize("name", ON_ERROR_ALONE)
def test_rewards_are_those_of_the_named_function_on_the_scorers_error(
    make: Any, mae: MaskedAutoencoder, clips: Tensor, name: str
) -> None:
    env = make(arrays="torch", reward=name)
    env.reset(options={"clips": clips})
    _, reward, _, _, info = env.step(actions())
    with torch.no_grad():
        error = mae(clips, actions()).error
    assert torch.equal(info["token_error"], error)
    assert torch.equal(info["token_reward"], REWARDS[name](error, actions()))
    assert torch.equal(reward, clip_return(REWARDS[name](error, actions()), actions()))
    sign = -1 if name.startswith("negative") else 1
    torch.testing.assert_close(reward, sign * error.sum(1) / 24)


def test_motion_share_pays_the_motion_of_what_is_visible(make: Any, clips: Tensor) -> None:
    env = make(arrays="torch", reward="motion_share")
    motion = torch.rand(NUM_ENVS, 32, generator=torch.Generator().manual_seed(5))
    env.reset(options={"clips": clips, "token_motion": motion})
    _, reward, _, _, info = env.step(actions())
    expected = torch.stack([row[idx].mean() for row, idx in zip(motion, actions(), strict=True)])
    torch.testing.assert_close(reward, expected)
    torch.testing.assert_close(info["motion_share"], expected)
    with pytest.raises(UsageError, match="needs true motion, which these clips lack"):
        env.reset(options={"clips": clips})


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_step_trains_a_learning_scorer_once_and_tells_of_it(
    make: Any, small_run: Any, clips: Tensor, arrays: str
) -> None:
    learner = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0)).learner
    before = {name: value.clone() for name, value in learner.mae.state_dict().items()}
    env = make(scorer=learner, arrays=arrays, reward="error_reduction", action="indices")
    env.reset(options={"clips": clips})
    measured = learner.score(clips, actions())
    assert all(torch.equal(before[k], value) for k, value in learner.mae.state_dict().items())
    _, reward, _, _, info = env.step(actions())
    assert learner.step == 1
    found = info["training_step"]
    # Of the weights before its step.
    assert torch.equal(found.error, measured)
    assert found.loss == pytest.approx(float(measured.sum()) / (2 * 24))
    assert found.grad_norm > 0
    assert len(reward) == NUM_ENVS


def test_single_form_tells_of_the_training_step_too(mae: MaskedAutoencoder, clips: Tensor) -> None:
    learner = MAELearner(
        mae, OptimConfig(warmup_epochs=0), steps_per_epoch=1, total_steps=9, global_batch=1
    )
    env = TokenSelectionEnv(scorer=learner, grid=mae.grid, width=16, num_visible=NUM_VISIBLE)
    env.reset(options={"clips": clips[0]})
    *_, info = env.step(actions()[0])
    assert info["training_step"].error.shape == (1, 32)
    assert learner.step == 1


def test_numpy_and_torch_environments_agree_and_fit_the_declared_spaces(
    make: Any, clips: Tensor
) -> None:
    env, twin = make(arrays="numpy"), make(arrays="torch")
    seen, _ = env.reset(options={"clips": clips.numpy()})
    expected, _ = twin.reset(options={"clips": clips})
    assert isinstance(seen, np.ndarray)
    assert env.observation_space.contains(seen)
    assert isinstance(env.single_action_space, spaces.MultiDiscrete)
    assert env.action_space.contains(actions().numpy())
    found, twins = env.step(actions().numpy()), twin.step(actions())
    assert np.array_equal(seen, expected.numpy())
    assert np.array_equal(found[1], twins[1].numpy())
    for name in ("token_reward", "token_error"):
        assert np.array_equal(found[4][name], twins[4][name].numpy())
    assert all(np.array_equal(found[i], twins[i]) for i in (2, 3))


def test_order_of_the_chosen_tokens_does_not_change_the_reward(make: Any, clips: Tensor) -> None:
    env = make()
    env.reset(options={"clips": clips})
    _, first, *_ = env.step(actions())
    env.reset(options={"clips": clips})
    _, second, *_ = env.step(actions().flip(1).int())  # nor does the integer's size
    assert np.array_equal(first, second)


def test_step_needs_a_reset_before_each_episode(make: Any, clips: Tensor) -> None:
    env = make()
    with pytest.raises(UsageError, match="call reset first"):
        env.step(actions())
    env.reset(options={"clips": clips})
    env.step(actions())
    with pytest.raises(UsageError, match="after the episode's end; call reset first"):
        env.step(actions())


BAD_ACTIONS = {
    "too few": (actions()[:, :-1], r"shape \(2, 7\), expected \(2, 8\)"),
    "too many": (torch.arange(9).expand(2, -1), r"shape \(2, 9\), expected \(2, 8\)"),
    "for one clip": (actions()[:1], r"shape \(1, 8\), expected \(2, 8\)"),
    "flat": (actions()[0], r"shape \(8,\), expected \(2, 8\)"),
    "repeated": (torch.tensor([[0, 1, 2, 3, 4, 5, 6, 3], [*range(8)]]), "names a token twice"),
    "too high": (torch.tensor([[*range(7), 32], [*range(8)]]), r"indices in \[0, 32\)"),
    "negative": (torch.tensor([[*range(8)], [-1, *range(7)]]), r"indices in \[0, 32\)"),
    "not whole": (actions().float(), "whole token indices"),
}


@pytest.mark.parametrize("kind", list(BAD_ACTIONS))
def test_action_that_is_not_k_distinct_tokens_is_refused_and_the_episode_goes_on(
    make: Any, clips: Tensor, kind: str
) -> None:
    action, message = BAD_ACTIONS[kind]
    env = make()
    env.reset(options={"clips": clips})
    with pytest.raises(UsageError, match=message):
        env.step(action)
    env.step(actions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, "reset needs options="),
        ({}, "reset needs options="),
        ({"clips": torch.zeros(2, 3, 4, 16, 16)}, "clips are torch.float32"),
        ({"clips": torch.zeros(3, 3, 4, 16, 16).byte()}, r"\(3, 3, 4, 16, 16\), expected .*\(2, 3"),
        ({"clips": torch.zeros(2, 4, 3, 16, 16).byte()}, r"\(2, 4, 3, 16, 16\), expected"),
        ({"clips": np.zeros((2, 3, 4, 16, 16))}, "clips are torch.float64"),
    ],
)
def test_clips_of_another_number_shape_or_type_are_refused(
    make: Any, options: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make().reset(options=options)


def test_unknown_reward_is_refused_with_the_known_ones(make: Any) -> None:
    with pytest.raises(UsageError, match=r"'token_eror' is not known; did you mean token_error\?"):
        make(reward="token_eror")


def test_registered_id_builds_the_environment_through_gymnasium(
    mae: MaskedAutoencoder, grid: TokenGrid, clips: Tensor
) -> None:
    env = gymnasium.make_vec(
        f"tats_ray.envs:{TOKEN_SELECTION}",
        num_envs=NUM_ENVS,
        scorer=Frozen(mae),
        grid=grid,
        width=16,
        num_visible=NUM_VISIBLE,
    )
    assert isinstance(env.unwrapped, TokenSelectionVectorEnv)
    assert env.num_envs == NUM_ENVS
    observation, _ = env.reset(seed=3, options={"clips": clips})
    assert env.observation_space.contains(observation)
    _, reward, *_ = env.step(actions().numpy())
    assert all(math.isfinite(value) for value in reward)
    env.close()


def test_scorer_without_what_an_option_needs_is_refused(mae: MaskedAutoencoder) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"num_visible": None}, "num_visible is missing"),
        ({"num_visible": 32}, r"num_visible 32 is not in \[1, 31\]"),
        ({"grid": None}, "Frozen has no grid and width; give both"),
        ({"action": "index"}, "action 'index' is not known; known: scores, indices"),
        ({"observation": "pixels"}, "observation 'pixels' is not known; known: features, tokens"),
        ({"checkpoint": "runs/demo"}, "both scorer and checkpoint are given"),
        ({"videos": "a.csv", "num_clips": 3}, "both videos and num_clips are given"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"render_mode": "human"}, "render_mode 'human' is not known; known: rgb_array"),
    ]
    base = {"scorer": Frozen(mae), "grid": mae.grid, "width": 16, "num_visible": NUM_VISIBLE}
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            TokenSelectionVectorEnv(NUM_ENVS, **{**base, **changes})


def test_folder_envs_of_a_checkout_is_the_same_module_as_tats_ray_envs() -> None:
    import envs

    assert envs is tats_ray.envs
    assert envs.TokenSelectionVectorEnv is TokenSelectionVectorEnv
