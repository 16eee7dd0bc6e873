from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tats_ray.core.errors import UsageError
from tats_ray.data import scene
from tats_ray.data.decode import probe, read_frames
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.data.motion import read_motion
from tats_ray.data.synthetic import CLASSES, SyntheticSet, make_clip, synthesize

SMALL = {"num_train": 32, "num_val": 8, "num_frames": 24, "size": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    return synthesize(tmp_path_factory.mktemp("synthetic") / "set", **SMALL)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pan nor flicker."""
    monkeypatch.setattr(scene, "_PAN_SHARE", 0.0)
    monkeypatch.setattr(scene, "_FLICKER_SHARE", 0.0)


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_same_spec_gives_the_same_bytes_whatever_the_workers(
    made: SyntheticSet, tmp_path: Path
) -> None:
    again = synthesize(tmp_path / "again", **SMALL, workers=1)
    digest = _digest(made.train_list.parent)
    assert len(digest) == 2 * 40 + 4
    assert _digest(again.train_list.parent) == digest
    other = synthesize(tmp_path / "other", **SMALL, seed=1)
    theirs = _digest(other.train_list.parent)
    assert sum(theirs[name] != digest[name] for name in digest) == 2 * 40 + 1


def test_same_frames_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    """With the defaults of x264, this fails more often than not."""
    frames, _ = make_clip(48, 96, 0, "train", 2, 2, "vivid")

    def digest(number: int) -> str:
        path = tmp_path / f"{number}.mp4"
        write_video(path, frames, 25, "h264")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(digest, range(100)))) == 1


def test_existing_set_is_returned_at_once_and_untouched(made: SyntheticSet) -> None:
    video = Path(read_list(made.train_list)[0].path)
    before = video.stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    again = synthesize(made.train_list.parent, **SMALL, progress=lambda *at: calls.append(at))
    assert (again, calls) == (made, [])
    assert video.stat().st_mtime_ns == before


def test_folder_with_another_set_is_refused(made: SyntheticSet) -> None:
    with pytest.raises(UsageError, match="another synthetic set"):
        synthesize(made.train_list.parent, **{**SMALL, "size": 96})


def test_folder_with_another_look_is_refused(made: SyntheticSet) -> None:
    with pytest.raises(UsageError, match="another synthetic set"):
        synthesize(made.train_list.parent, **SMALL, look="clear")


def test_clear_sprites_are_warm_and_their_ground_is_cool() -> None:
    warmth = []
    for index in range(16):
        frames, motion = make_clip(2, 64, 0, "t", index, index % 8, "clear")
        red = frames[..., 0].astype(float) - frames[..., 1:].mean(-1)
        warmth.append((red[motion].mean(), red[~motion].mean()))
    sprites, ground = np.array(warmth).T
    assert ground.max() < 0
    assert np.median(sprites) > 30
    assert sprites.mean() - ground.mean() > 60


def test_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="something other"):
        synthesize(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_failure_leaves_no_folder_behind(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "set", **SMALL, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_is_filled_and_progress_counts_every_video(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    small = {"num_train": 2, "num_val": 1, "num_frames": 4, "size": 32}
    synthesize(tmp_path, **small, progress=lambda *at: calls.append(at))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert (tmp_path / "classes.json").is_file()


@pytest.mark.parametrize("bad", [{"size": 33}, {"size": 8}, {"num_val": 0}, {"workers": 0}])
def test_impossible_sizes_are_refused(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="cannot make"):
        synthesize(tmp_path / "set", **{**SMALL, **bad})


def test_classes_are_balanced_and_come_in_both_containers(made: SyntheticSet) -> None:
    train = read_list(made.train_list, num_classes=len(CLASSES))
    val = read_list(made.val_list, num_classes=len(CLASSES))
    assert Counter(entry.label for entry in train) == dict.fromkeys(range(8), 4)
    assert Counter(entry.label for entry in val) == dict.fromkeys(range(8), 1)
    kinds = Counter((entry.label, Path(entry.path).suffix) for entry in train)
    assert kinds == {(label, kind): 2 for label in range(8) for kind in (".mp4", ".avi")}
    assert made.classes == CLASSES


def test_videos_hold_what_the_scene_showed_and_its_motion(made: SyntheticSet) -> None:
    for index, entry in enumerate(read_list(made.val_list)):
        assert entry.label is not None
        frames, motion = make_clip(24, 64, 0, "val", index, entry.label)
        assert probe(entry.path).num_frames == 24
        stored = read_frames(entry.path, lambda n: range(n))
        # Chroma is stored at half size, so that the rim of a sprite is softer than it was.
        assert np.abs(stored.astype(int) - frames).mean() < 5
        np.testing.assert_array_equal(read_motion(entry.path), motion)


@pytest.mark.usefixtures("quiet")
def test_pixels_change_where_they_are_said_to_move_and_nowhere_else() -> None:
    for index in range(16):
        frames, motion = make_clip(16, 96, 0, "t", index, index % 8)
        change = np.abs(np.diff(frames.astype(float), axis=0)).mean(-1)
        either = motion[1:] | motion[:-1]
        assert change[either].mean() > 2.5 * change[~either].mean()
        assert change[~either].mean() < 4.5  # the noise, and the soft rim
        assert 0.03 < motion.mean() < 0.3


@pytest.mark.parametrize("share", ["_PAN_SHARE", "_FLICKER_SHARE"])
def test_pan_and_flicker_change_pixels_that_are_not_said_to_move(
    share: str, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    def changed_outside() -> float:
        """Share of the pixels outside the motion that differ by more than noise at some time."""
        shares = []
        for index in range(8):
            frames, motion = make_clip(16, 96, 0, "t", index, 0)
            change = np.abs(frames[1:].astype(float) - frames[0]).mean(-1).max(0)
            shares.append((change > 25)[~motion.any(0)].mean())
        return float(np.mean(shares))

    before = changed_outside()
    monkeypatch.setattr(scene, share, 1.0)
    assert before < 0.02
    assert changed_outside() > 0.05


def _track(motion: np.ndarray) -> np.ndarray:
    """(x, y) over time of what moves, up to a constant, measured on the torus.

    The phase of the second harmonic, so that a twin half a torus away adds to it.
    """
    size = motion.shape[1]
    wave = np.exp(4j * np.pi * np.arange(size) / size)
    sums = np.stack([motion.sum(1) @ wave, motion.sum(2) @ wave], axis=1)
    return np.unwrap(np.angle(sums), axis=0) * size / (4 * np.pi)


@pytest.mark.parametrize("label", range(8))
def test_motion_is_of_the_kind_that_the_label_names(label: int) -> None:
    for index in range(6):
        track = _track(make_clip(32, 96, 0, "t", index, label)[1])
        step = np.diff(track, axis=0)
        (dx, dy), (span_x, span_y) = track[-1] - track[0], np.ptp(track, axis=0)
        turn = (track[:-1, 0] * step[:, 1] - track[:-1, 1] * step[:, 0]).sum()
        turn -= track[:, 0].mean() * dy - track[:, 1].mean() * dx  # seen from the middle
        is_turning = min(span_x, span_y) > 12
        is_level, is_upright = span_y < 2, span_x < 2
        found = {
            "left": is_level and dx < -40,
            "right": is_level and dx > 40,
            "up": is_upright and dy < -40,
            "down": is_upright and dy > 40,
            "clockwise": is_turning and turn > 0,  # on a screen, where y points down
            "counter_clockwise": is_turning and turn < 0,
            "horizontal_swing": is_level and 12 < span_x < 27,
            "vertical_swing": is_upright and 12 < span_y < 27,
        }
        assert [name for name, is_so in found.items() if is_so] == [CLASSES[label]]


def test_sprites_move_three_to_five_pixels_per_frame_at_stride_two() -> None:
    for index in range(8):
        track = _track(make_clip(32, 96, 0, "t", index, 1)[1])
        assert 2.8 < 2 * (track[-1, 0] - track[0, 0]) / 31 < 5.0


@pytest.mark.parametrize("look", ["vivid", "clear"])
def test_first_frame_does_not_know_in_which_direction_things_go(look: Any) -> None:
    first = [make_clip(2, 64, 0, "t", 3, label, look)[0][0] for label in range(4)]
    for other in first[1:]:
        np.testing.assert_array_equal(other, first[0])


def test_places_of_sprites_are_spread_evenly_over_the_picture_in_all_classes() -> None:
    for label in (0, 4, 6):
        seen = sum(make_clip(2, 32, 0, "t", index, label)[1].mean(0) for index in range(150))
        assert isinstance(seen, np.ndarray)
        quarters = seen.reshape(2, 16, 2, 16).mean(axis=(1, 3)) / seen.mean()
        assert 0.75 < quarters.min() <= quarters.max() < 1.25


def test_nearly_every_patch_has_a_slope_in_every_colour(made: SyntheticSet) -> None:
    stds = []
    for index in range(16):
        frames, _ = make_clip(1, 96, 0, "t", index, 0)
        patches = frames[0].reshape(12, 8, 12, 8, 3).swapaxes(1, 2).reshape(144, 64, 3)
        stds.append(patches.std(axis=1))
    assert np.quantile(stds, 0.02) > 1.2 * 255 * scene._NOISE * 0.7
    assert np.median(stds) > 6
