"""Which clips an environment shows: the same seed the same episode, one row as one environment."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from tats_ray.envs import SEQUENTIAL_TOKEN_SELECTION, TOKEN_SELECTION

from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import synthesize

both = pytest.mark.parametrize("env_id", [TOKEN_SELECTION, SEQUENTIAL_TOKEN_SELECTION])


def episode(env: Any, seed: int, actions: np.ndarray) -> list[Any]:
    """Everything that an episode shows and pays, flat."""
    seen, info = env.reset(seed=seed)
    found = [seen, info["token_motion"]]
    for action in actions:
        seen, reward, terminated, _, info = env.step(action)
        found += [seen, reward, info["token_error"], info["motion_share"]]
        if np.all(terminated):
            break
    return found


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@both
def test_same_seed_same_episode_bit_for_bit(env_id: str) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 144))
    first, second, other = (episode(gymnasium.make(env_id), seed, actions) for seed in (3, 3, 4))
    assert same(first, second)
    assert not same(first, other)


@both
def test_row_of_the_vector_form_is_the_single_environment_of_its_seed(env_id: str) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, 144))
    vector = episode(gymnasium.make_vec(env_id, num_envs=3, autoreset=False), 10, actions)
    for row in range(3):
        single = episode(gymnasium.make(env_id), 10 + row, actions[:, row])
        for whole, part in zip(vector, single, strict=True):
            np.testing.assert_allclose(whole[row], part, rtol=1e-4, atol=1e-5)


def test_automatic_reset_continues_the_streams_of_the_rows() -> None:
    vector = gymnasium.make_vec(TOKEN_SELECTION, num_envs=2)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    singles = [gymnasium.make(TOKEN_SELECTION) for _ in range(2)]
    seen, _ = vector.reset(seed=5)
    starts = [env.reset(seed=5 + row)[0] for row, env in enumerate(singles)]
    action = np.zeros((2, 144), np.float32)
    for _ in range(3):
        assert np.array_equal(seen, starts)
        following, _, terminated, _, info = vector.step(action)
        assert terminated.all()
        assert np.array_equal(info["final_obs"], seen)
        assert info["_final_obs"].all()
        np.testing.assert_array_equal(info["final_info"]["token_error"], info["token_error"])
        seen = following
        starts = [env.reset()[0] for env in singles]
    assert not np.array_equal(seen[0], seen[1])


def test_list_of_seeds_seeds_the_rows_and_an_unseeded_one_draws_its_own() -> None:
    vector = gymnasium.make_vec(TOKEN_SELECTION, num_envs=2)
    seen, _ = vector.reset(seed=[8, 3])
    for row, seed in enumerate((8, 3)):
        assert np.array_equal(seen[row], gymnasium.make(TOKEN_SELECTION).reset(seed=seed)[0])
    with pytest.raises(UsageError, match="3 seeds for 2 environments"):
        vector.reset(seed=[1, 2, 3])
    gymnasium.make_vec(TOKEN_SELECTION, num_envs=2).reset()


def test_numbered_clip_is_the_same_in_every_environment() -> None:
    numbers = [9, 2]
    vector = gymnasium.make_vec(TOKEN_SELECTION, num_envs=2)
    seen, _ = vector.reset(options={"clip_idx": numbers})
    for row, number in enumerate(numbers):
        single, _ = gymnasium.make(TOKEN_SELECTION).reset(options={"clip_idx": number})
        assert np.array_equal(seen[row], single)
    for bad in ([0], [0, 256], [-1, 0]):
        with pytest.raises(UsageError, match=r"2 numbers in \[0, 256\)"):
            vector.reset(options={"clip_idx": bad})


def test_clips_of_the_caller_are_shown_and_their_random_masks_are_probed() -> None:
    env = gymnasium.make(TOKEN_SELECTION)
    env.reset(options={"clip_idx": 0})
    clip = env.unwrapped.vector.task.source[0].pixels  # type: ignore[attr-defined]
    action = np.zeros(144, np.float32)
    _, own, *_ = env.step(action)
    env.reset(options={"clips": clip.numpy()})  # row 0, so the masks of number 0
    _, brought, _, _, info = env.step(action)
    assert brought == own
    assert "motion_share" not in info


def test_videos_of_a_list_are_shown_with_their_true_motion(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "set", num_train=1, num_val=3, num_frames=16, size=24)
    env = gymnasium.make(TOKEN_SELECTION, videos=str(made.val_list), reward="motion_share")
    _, info = env.reset(options={"clip_idx": 2})
    assert 0 < info["token_motion"].mean() < 1
    oracle = info["token_motion"] / info["token_motion"].max()
    _, best, *_ = env.step(oracle)
    assert best == pytest.approx(np.sort(info["token_motion"])[-16:].mean())
    env.reset(options={"clip_idx": 2})
    _, worst, *_ = env.step(-oracle)
    assert worst < best
    with pytest.raises(UsageError, match=r"nowhere\.csv"):
        gymnasium.make(TOKEN_SELECTION, videos=str(tmp_path / "nowhere.csv"))


@both
def test_step_after_the_end_and_unknown_reset_options_are_refused(env_id: str) -> None:
    env = gymnasium.make(env_id).unwrapped
    with pytest.raises(UsageError, match="call reset first"):
        env.step(np.zeros(144))
    env.reset(seed=0)
    for _ in range(env.vector.num_rounds or 1):  # type: ignore[attr-defined]
        env.step(np.zeros(144))
    with pytest.raises(UsageError, match="after the episode's end; call reset first"):
        env.step(np.zeros(144))
    with pytest.raises(UsageError, match="reset option 'clip' is not known; known: clips"):
        env.reset(options={"clip": 0})
    vector = gymnasium.make_vec(env_id, num_envs=2)
    with pytest.raises(UsageError, match="all must be reset together"):
        vector.reset(options={"reset_mask": np.array([True, False])})


def test_zero_of_error_reduction_is_random_choice_and_motion_alone_is_worse() -> None:
    """The table of docs/environments.md: a budget spent on what moves leaves the rest unseen."""
    env = gymnasium.make_vec(TOKEN_SELECTION, num_envs=256, autoreset=False)
    everything = {"clip_idx": np.arange(256)}
    noise = np.random.default_rng(0).uniform(-1, 1, (256, 144))
    _, info = env.reset(seed=0, options=everything)
    _, random, *_ = env.step(noise)
    assert abs(random.mean()) < 4 * random.std() / 16
    env.reset(options=everything)
    _, oracle, *_, after = env.step(info["token_motion"] + 1e-3 * noise)
    assert after["motion_share"].mean() > 5 * info["token_motion"].mean()
    assert oracle.mean() < -0.3


@both
@pytest.mark.parametrize("copied", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy])
@pytest.mark.parametrize("is_vector", [True, False])
def test_copy_goes_on_as_the_original_does(
    env_id: str, copied: Callable[[Any], Any], is_vector: bool
) -> None:
    env = gymnasium.make_vec(env_id, num_envs=2) if is_vector else gymnasium.make(env_id)
    env.reset(seed=5)
    env.action_space.seed(5)
    env.step(env.action_space.sample())
    twin = copied(env)

    def onwards(one: Any) -> list[Any]:
        found = []
        for _ in range(4):
            seen, reward, terminated, _, info = one.step(one.action_space.sample())
            found += [seen, reward, info["token_error"]]
            if np.all(terminated) and not is_vector:
                found.append(one.reset()[0])
        return found

    env.reset(), twin.reset()  # as the task of one step needs, with the streams as they are
    assert same(onwards(env), onwards(twin))
