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
from tats_ray.data.atari import atari_set, console, episodes
from tats_ray.data.atari.atari_set import AtariSet, make_atari
from tats_ray.data.atari.episodes import PlayedEpisode, play
from tats_ray.data.atari.games import Game, game_of
from tats_ray.data.atari.states import read_states, states_path, write_states
from tats_ray.data.decode import read_frames
from tats_ray.data.manifest import read_list
from tats_ray.data.motion import read_motion
from tests.commands import tats
from tests.full_disk import files_limited_to

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


def test_masks_hold_the_objects_and_nothing_else(pong: AtariSet) -> None:
    """Everything in Pong but its ground moves."""
    assert pong.has_motion
    shares = []
    for entry in read_list(pong.train_list):
        frames = read_frames(entry.path, lambda total: range(total))
        motion = read_motion(entry.path)
        assert motion is not None
        is_object = (frames != frames[0, 80, 80]).any(-1)
        shares.append((motion == is_object).mean())
        assert not (motion & ~is_object).any()
    assert np.mean(shares) > 0.9995


def test_brick_is_background_until_it_is_hit_and_so_is_its_gap() -> None:
    screens = np.zeros((200, 4, 40), np.uint8)
    screens[:110, 1, 8:16] = 6  # a brick, hit in the middle of the clip
    for time in range(200):
        screens[time, 3, time % 40] = 9  # a ball
    screens[:, 0] = np.where(np.arange(200) % 2, 3, 5)[:, None]  # blinks
    episode = PlayedEpisode(
        screens, np.zeros((200, 128), np.uint8), np.zeros((256, 3), np.uint8), (), 20, 2
    )
    objects = episode.objects(100)
    assert not objects[:, :3].any()
    np.testing.assert_array_equal(objects[:, 3], screens[100:120, 3] == 9)


def test_clips_in_which_nothing_is_in_play_are_left_out(breakout: AtariSet) -> None:
    for entry in read_list(breakout.train_list):
        states = read_states(entry.path)
        assert states is not None
        assert np.isfinite(states["ball_y"]).mean() >= 0.8
    idle = Game(in_play="ball_y", values=game_of("breakout").values, actions=("NOOP",))
    assert play("breakout", idle, num_frames=8, frame_skip=8, seed=0).starts == ()


@pytest.mark.parametrize(
    ("num_missing", "num_still", "is_shown"),
    [(3, 0, True), (4, 0, False), (0, 7, True), (0, 8, False)],
)
def test_clip_shows_the_ball_and_changes_for_most_of_the_time(
    num_missing: int, num_still: int, is_shown: bool
) -> None:
    screens = np.zeros((16, 4, 4), np.uint8)
    screens[: 16 - num_still, 0, 0] = np.arange(16 - num_still) % 2
    screens[16 - num_still :, 0, 0] = screens[15 - num_still, 0, 0]
    memory = np.ones((16, 128), np.uint8)
    memory[:num_missing, 54] = 0
    assert episodes._is_in_play(game_of("pong"), screens, memory) == is_shown


def test_lists_share_no_episode(pong: AtariSet) -> None:
    train, val = (read_list(path) for path in (pong.train_list, pong.val_list))
    assert (len(train), len(val)) == (9, 2)
    seen = {read_frames(entry.path, lambda total: [0, 1]).tobytes() for entry in (*train, *val)}
    assert len(seen) == 11


def test_states_come_back_with_gaps(tmp_path: Path) -> None:
    states = {"a_x": np.array([1.0, np.nan]), "b": np.array([-2.0, 255.0])}
    write_states(tmp_path / "v.mp4", states)
    assert states_path(tmp_path / "v.mp4").read_text() == "a_x,b\n1,-2\n,255\n"
    found = read_states(tmp_path / "v.mp4")
    assert found is not None
    for name, values in states.items():
        np.testing.assert_array_equal(found[name], values)
    assert read_states(tmp_path / "w.mp4") is None
    states_path(tmp_path / "v.mp4").write_text("a,b\n1,x\n")
    with pytest.raises(UsageError, match="is not a table of states"):
        read_states(tmp_path / "v.mp4")


def test_game_without_annotations_has_no_states_and_a_moving_background_no_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atari_set, "_MAX_MOVING", 0.0)
    made = make_atari(tmp_path / "x", "boxing", num_train=1, num_val=1, num_frames=4)
    assert (made.values, made.has_motion) == ((), False)
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [
        *(".csv",) * 2, ".json", *(".mp4",) * 2
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["MsPacman", "ms-pacman", "ALE/MsPacman-v5", "ms_pacman"])
def test_game_is_found_by_the_names_people_use(name: str) -> None:
    assert console.find_game(name) == "ms_pacman"


@pytest.mark.parametrize(
    ("game", "flags", "says"),
    [
        ("pongg", {}, "ale-py has no game 'pongg'; did you mean pong"),
        ("xqwyk", {}, "ale-py has no game 'xqwyk'; it has 108, such as adventure, "),
        ("boxing", {"needs_states": True}, "nobody annotated the memory of boxing here; leave "),
        ("pong", {"num_val": 0}, "cannot make 9 \\+ 0 videos of 16 frames, skip 2, with 2 workers"),
        ("pong", {"num_frames": 5000}, "32 episodes of pong had no 5000 frames"),
    ],
)
def test_wrong_requests_are_told_in_one_line(
    tmp_path: Path, game: str, flags: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "num_frames" in flags:
        monkeypatch.setattr(atari_set, "play", lambda *words, **how: NOTHING)
    with pytest.raises(UsageError, match=says) as caught:
        make_atari(tmp_path / "x", game, **{**SMALL, **flags})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


NOTHING = PlayedEpisode(
    np.zeros((0, 160, 160), np.uint8),
    np.zeros((0, 128), np.uint8),
    np.zeros((256, 3), np.uint8),
    (),
    1,
    1,
)


def test_folder_begun_with_other_settings_is_refused_and_the_same_one_is_kept(
    pong: AtariSet, tmp_path: Path
) -> None:
    folder = pong.train_list.parent
    assert json.loads((folder / "atari.json").read_text())["num_train"] == 9
    calls: list[int] = []
    again = make_atari(folder, "pong", **SMALL, progress=lambda done, total: calls.append(done))
    assert (again, calls) == (pong, [])
    with pytest.raises(UsageError, match="holds another set of Atari videos"):
        make_atari(folder, "pong", **SMALL, seed=1)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds something other than a set of Atari videos"):
        make_atari(tmp_path, "pong", **SMALL)


def test_progress_counts_every_video(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    few = {"num_train": 2, "num_val": 1, "num_frames": 4}
    make_atari(tmp_path / "x", "pong", **few, progress=lambda *at: calls.append(at))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_command_says_where_the_lists_are_and_what_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num-train", "1", "--num-val", "1", "--num-frames", "4"]
    tats("data", "atari", "MsPacman", tmp_path / "x", *few)
    first, second, states, *rest = capsys.readouterr().out.splitlines()
    assert [first, second] == [str(tmp_path / "x" / f"{name}.csv") for name in ("train", "val")]
    assert states.startswith("        states  player_x, player_y, enemy_sue_x, ")
    assert rest == []  # of motion that is known, nothing is said


def test_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    few = {"num_train": 1, "num_val": 1, "num_frames": 4}
    with files_limited_to(600), pytest.raises(UsageError, match="cannot be written .*free space"):
        make_atari(tmp_path / "x", "pong", **few)
    assert list(tmp_path.iterdir()) == []


def test_missing_ale_py_and_missing_games_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"ale-py is here without its games \(.*nowhere"):
        make_atari(tmp_path / "x", "pong", **SMALL)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setitem(sys.modules, "ale_py.roms", None)
    with pytest.raises(UsageError, match="ale-py is not installed .*; pip install ale-py"):
        make_atari(tmp_path / "x", "pong", **SMALL)
