"""What an agent sees, against values worked out by hand."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from tats_ray.envs import SEQUENTIAL_TOKEN_SELECTION, TOKEN_SELECTION
from tats_ray.envs.observations import clip_features, round_features

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid

GRID = TokenGrid(num_frames=4, image_size=4, tubelet=2, patch=2)  # 2 x 2 x 2 tokens


def test_features_of_a_clip_in_which_one_place_brightens() -> None:
    clip = torch.full((1, *GRID.clip_shape), 51, dtype=torch.uint8)  # 0.2
    clip[0, :, 2:, :2, :2] = 153  # 0.6 in the second slot, upper left
    energy, contrast, brightness = clip_features(clip, GRID)[0].unbind(-1)
    # 0.4 in both slots there and 0 elsewhere; the clip's mean is 0.1, so 0.4 / 0.5.
    torch.testing.assert_close(energy, torch.tensor([0.8, 0, 0, 0, 0.8, 0, 0, 0]))
    torch.testing.assert_close(contrast, torch.zeros(8))
    torch.testing.assert_close(brightness, torch.tensor([0.2] * 4 + [0.6] + [0.2] * 3))


def test_contrast_is_the_deviation_within_a_token_relative_to_the_clip() -> None:
    clip = torch.zeros(1, *GRID.clip_shape, dtype=torch.uint8)
    clip[0, :, :, 0:2, 0] = 255  # half of the pixels of tokens 0 and 4: deviation 1/2, mean 1/8
    _, contrast, _ = clip_features(clip, GRID)[0].unbind(-1)
    torch.testing.assert_close(contrast, torch.tensor([0.8, 0, 0, 0, 0.8, 0, 0, 0]))


def test_round_features_are_visibility_and_the_squashed_error() -> None:
    found = round_features(torch.tensor([[True, False]]), torch.tensor([[0.0, 3.0]]))
    assert found.tolist() == [[[1.0, 0.0], [0.0, 0.75]]]


@pytest.mark.parametrize("kind", ["features", "tokens", "clip"])
def test_one_shot_observation_is_what_its_kind_says(kind: str) -> None:
    env = gymnasium.make(TOKEN_SELECTION, observation=kind)
    seen, _ = env.reset(options={"clip_idx": 7})
    clip = env.unwrapped.vector.task.source[7].pixels[None]  # type: ignore[attr-defined]
    scorer = FrozenScorer.tiny()
    expected = {
        "features": clip_features(clip, scorer.grid).flatten(1),
        "tokens": scorer.embed(clip),
        "clip": clip,
    }[kind][0].numpy()
    assert np.array_equal(seen, expected)
    assert env.observation_space.contains(seen)


def test_each_round_sees_what_is_visible_and_the_error_it_left() -> None:
    env = gymnasium.make(SEQUENTIAL_TOKEN_SELECTION)
    tokens = gymnasium.make(SEQUENTIAL_TOKEN_SELECTION, observation="tokens")
    seen, _ = env.reset(seed=0)
    tokens.reset(seed=0)
    assert not seen.reshape(144, 5)[:, 3:].any()
    for count in (4, 8, 12, 16):
        action = env.action_space.sample()
        seen, _, terminated, _, info = env.step(action)
        rows = seen.reshape(144, 5)
        error = info["token_error"]
        assert rows[:, 3].sum() == count
        assert np.array_equal(rows[:, 3] == 1, error == 0)
        np.testing.assert_allclose(rows[:, 4], error / (1 + error), rtol=1e-6)
        assert np.array_equal(tokens.step(action)[0][:, -2:], rows[:, 3:])
        assert terminated == (count == 16)


def test_pixels_have_no_place_for_an_error_map() -> None:
    with pytest.raises(UsageError, match="'clip' has no place for the error map"):
        gymnasium.make(SEQUENTIAL_TOKEN_SELECTION, observation="clip")
