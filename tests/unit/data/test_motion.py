from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.data.motion import motion_path, read_motion, token_motion, write_motion


def test_motion_survives_the_file_for_a_size_that_fills_no_whole_byte(tmp_path: Path) -> None:
    motion = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    write_motion(tmp_path / "v.mp4", motion)
    np.testing.assert_array_equal(read_motion(tmp_path / "v.mp4"), motion)
    assert motion_path(tmp_path / "v.mp4") == tmp_path / "v.motion.npz"


def test_video_without_motion_has_none(tmp_path: Path) -> None:
    assert read_motion(tmp_path / "v.mp4") is None


def test_damaged_motion_file_is_a_usage_error(tmp_path: Path) -> None:
    motion_path(tmp_path / "v.mp4").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="not a motion file"):
        read_motion(tmp_path / "v.mp4")


def test_motion_of_a_single_token_lands_on_its_index() -> None:
    grid = TokenGrid(num_frames=4, image_size=12, tubelet=2, patch=4)
    motion = np.zeros((4, 12, 12), bool)
    t, y, x = 1, 2, 0
    motion[t * 2, y * 4 : y * 4 + 4, x * 4 : x * 4 + 4] = True  # one frame of two
    expected = np.zeros(grid.num_tokens)
    expected[(t * grid.side + y) * grid.side + x] = 0.5
    np.testing.assert_array_equal(token_motion(motion, grid), expected)


def test_motion_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        token_motion(np.zeros((4, 12, 12), bool), TokenGrid(num_frames=4, image_size=16, patch=4))
