"""Videos of Atari games: what is shown, what is said of it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tats_ray.core.errors import UsageError
from tats_ray.data.atari import atari_set, console
from tats_ray.data.atari.atari_set import AtariSet, make_atari
from tats_ray.data.atari.episodes import play
from tats_ray.data.atari.games import Game, game_of
from tats_ray.data.atari.states import read_states, states_path, write_states
from tats_ray.data.decode import read_frames
from tats_ray.data.manifest import read_list
from tats_ray.data.motion import read_motion

SMALL: dict[str, Any] = {"num_train": 9, "num_val": 2, "num_frames": 16}


@pytest.fixture(scope="module")
def pong(tmp_path_factory: pytest.TempPathFactory) -> AtariSet:
    return make_atari(tmp_path_factory.mktemp("atari") / "pong", "Pong", **SMALL)


@pytest.fixture(scope="module")
def breakout(tmp_path_factory: pytest.TempPathFactory) -> AtariSet:
    return make_atari(tmp_path_factory.mktemp("atari") / "breakout", "breakout", **SMALL)


def _digest(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_same_seed_gives_the_same_bytes_whatever_the_workers(
    pong: AtariSet, tmp_path: Path
) -> None:
    again = make_atari(tmp_path / "again", "pong", **SMALL, workers=1)
    digest = _digest(pong.train_list.parent)
    assert len(digest) == 3 * 11 + 3
    assert _digest(again.train_list.parent) == digest
    other = make_atari(tmp_path / "other", "pong", num_train=1, num_val=1, num_frames=16, seed=1)
    assert not {*_digest(other.train_list.parent).values()} & {*digest.values()}


def _corner(is_object: np.ndarray) -> tuple[float, float]:
    """(column, row) of the upper left pixel."""
    rows, columns = np.nonzero(is_object)
    return (columns.min(), rows.min()) if rows.size else (np.nan, np.nan)


def _pong_objects(frame: np.ndarray) -> dict[str, float]:
    def find(*rgb: int) -> tuple[float, float]:
        return _corner((frame == rgb).all(-1))

    ball_x, ball_y = find(236, 236, 236)
    return {
        "ball_x": ball_x,
        "ball_y": ball_y,
        "player_y": find(92, 186, 92)[1],
        "enemy_y": find(213, 130, 74)[1],
    }


def _breakout_objects(frame: np.ndarray) -> dict[str, float]:
    is_red = (frame == (200, 72, 72)).all(-1)
    is_red[:, :8] = is_red[:, 152:] = False
    is_red[:60] = False  # bricks
    ball_x, ball_y = _corner(is_red[:150])
    return {
        "ball_x": ball_x,
        "ball_y": ball_y,
        "player_x": _corner(is_red[155:])[0],
    }


@pytest.mark.parametrize(
    ("game", "find"), [("pong", _pong_objects), ("breakout", _breakout_objects)]
)
def test_objects_are_where_the_memory_says_in_99_of_100_frames(
    game: str, find: Callable[[np.ndarray], dict[str, float]], request: pytest.FixtureRequest
) -> None:
    errors: dict[str, list[float]] = {}
    made: AtariSet = request.getfixturevalue(game)
    for entry in read_list(made.train_list):
        states = read_states(entry.path)
        assert states is not None
        assert tuple(states) == made.values
        frames = read_frames(entry.path, lambda total: range(total))
        assert len(frames) == 16
        for at, frame in enumerate(frames):
            is_hidden = game == "breakout" and not 60 < states["ball_y"][at] < 146
            for name, found in find(frame).items():
                if is_hidden and name.startswith("ball"):
                    continue  # among the bricks or beside the paddle, which have its colour
                # What sticks out above is seen from the first row on.
                stored = max(states[name][at], 0)
                if np.isfinite(found) or np.isfinite(stored):
                    errors.setdefault(name, []).append(abs(found - stored))
    for name, distances in errors.items():
        assert len(distances) > 50, name
        assert np.mean(np.array(distances) <= 2) >= 0.99, name
