"""The picture: visible tokens as they are and outlined, hidden ones dim."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from tats_ray.envs import TOKEN_SELECTION

from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.view.overlay import draw_overlay


def test_overlay_leaves_visible_tokens_bright_and_outlines_them() -> None:
    grid = TokenGrid(num_frames=4, image_size=160, tubelet=2, patch=80)  # 2 slots of 2 x 2, as is
    clip = torch.full((3, 4, 160, 160), 100, dtype=torch.uint8)
    clip[:, 2] = 200  # the first frame of the second slot
    picture = draw_overlay(clip, torch.tensor([0, 1, 0, 0, 0, 0, 1, 0]).bool(), grid)
    assert picture.shape == (160, 160 + 4 + 160, 3)
    middles = picture[40::80, [40, 120, 204, 284], 0]
    assert middles.tolist() == [[30, 100, 60, 60], [30, 30, 200, 60]]
    assert picture[0, 80].tolist() == [255, 214, 10]  # the outline of token 1
    assert picture[0, 0].tolist() == [30, 30, 30]  # hidden: none
    assert (picture[:, 160:164] == 255).all()


def test_environments_draw_the_last_mask_of_each_clip() -> None:
    vector = gymnasium.make_vec(TOKEN_SELECTION, num_envs=2, render_mode="rgb_array")
    single = gymnasium.make(TOKEN_SELECTION, render_mode="rgb_array")
    with pytest.raises(UsageError, match="render was called before the first reset"):
        vector.render()
    vector.reset(seed=4)
    single.reset(seed=4)
    before = single.render()
    action = np.random.default_rng(0).uniform(-1, 1, (2, 144))
    vector.step(action)  # the next clips are there already, the picture is of these
    single.step(action[0])
    pictures = vector.render()
    assert len(pictures) == 2
    assert pictures[0].dtype == np.uint8
    assert np.array_equal(pictures[0], single.render())
    outlined = (pictures[0] == (255, 214, 10)).all(-1)
    assert not (before == (255, 214, 10)).all(-1).any()
    assert outlined.sum() == 16 * (28**2 - 26**2)  # 16 tokens of 4 pixels, seven times as large
    with pytest.raises(UsageError, match="render needs render_mode="):
        gymnasium.make_vec(TOKEN_SELECTION, num_envs=2).render()
