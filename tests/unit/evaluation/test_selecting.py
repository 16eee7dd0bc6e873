"""`tats select` against videos whose motion is known, and against what it cannot use."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import tats_ray
from tats_ray.checkpoints.tiny_sampler import TINY_SAMPLER, tiny_sampler
from tats_ray.config.load import parse_config
from tats_ray.core.errors import CheckpointError, TatsError, UsageError, VideoError
from tats_ray.data.decode import all_frames, probe
from tats_ray.data.encode import write_video
from tats_ray.data.motion import token_motion
from tats_ray.data.synthetic import make_clip
from tats_ray.evaluation.selecting.coverage import Lattice, apart, connected
from tats_ray.evaluation.selecting.select_command import select_video
from tats_ray.evaluation.selecting.select_frames import _windows, select_frames
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import token_grid
from tats_ray.ops.measures import ranking_auc
from tats_ray.ops.patches import patchify, unit_pixels
from tests.full_disk import files_limited_to
from tests.official import encoder_only
from tests.random_checkpoints import official, own_run

CONFIG = parse_config(
    {
        "data": {"num_frames": 8, "image_size": 16, "stride": 2},
        "model": {"size": "tiny", "patch": 8},
        "sampler": {"name": "tats", "mask_ratio": 0.75},
    }
)  # 4 x 2 x 2 = 16 tokens, each of 4 frames of the video
GRID = token_grid(CONFIG.data, CONFIG.model)


class Differences:
    """In place of an autoencoder: a token is how much its two frames differ."""

    mask_token = torch.zeros(1)

    def embed(self, clips: Tensor) -> Tensor:
        pixels = unit_pixels(patchify(clips, GRID)).unflatten(2, (2, -1))
        return (pixels[:, :, 0] - pixels[:, :, 1]).abs().mean(-1, keepdim=True)


class Moving(nn.Module):
    """Sure of what moves, and indifferent to the rest."""

    def forward(self, tokens: Tensor) -> Tensor:
        return 60.0 * (tokens[..., 0] > 0.01)


class Seer:
    """Networks that know what moves."""

    config, grid, mae, origin = CONFIG, GRID, Differences(), "seer"

    def __init__(self, sampler: nn.Module | None = None) -> None:
        self.policy = SamplerPolicy(sampler or Moving(), 1)


MOVING = range(24, 40)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 frames of 96 x 48; only in 24 to 39 something moves, at the lower right."""
    frames = np.full((64, 48, 96, 3), 90, np.uint8)
    for index in MOVING:
        frames[index, 30:42, 74 + index % 8 : 84 + index % 8] = 250
    path = tmp_path_factory.mktemp("select") / "known.mkv"
    write_video(path, frames, 16, "lossless")
    return path


def test_windows_are_merged_to_what_can_be_worked_out_by_hand(video: Path) -> None:
    """Of the windows that see a moving slot, one shares 16 tokens' worth among two, one among four.

    Columns 0 and 1 lie in the other square, where nothing moves and all is equally likely.
    """
    heat = select_frames(Seer(), video, 2).heat
    assert heat.shape == (16, 2, 4)
    np.testing.assert_allclose(heat[6:10, 1, 3], (16 / 2 + 16 / 4) / 2, rtol=1e-4)
    np.testing.assert_allclose(heat[:, :, :2], 1.0, rtol=1e-4)
    np.testing.assert_allclose(heat[6:10, 0, 3], 0.0, atol=1e-4)
    np.testing.assert_allclose(heat[:4, :, 2:], 1.0, rtol=1e-4)


def test_frames_and_boxes_are_where_and_when_something_moves(video: Path) -> None:
    selection = select_frames(Seer(), video, 4)  # at least 2 time slots apart
    assert (selection.width, selection.height, selection.num_frames) == (96, 48, 64)
    assert {frame.rank for frame in selection.frames if frame.frame in MOVING} == {1, 2}
    best = min(selection.frames, key=lambda frame: frame.rank)
    assert [region.box for region in best.regions] == [[72, 24, 96, 48]]
    # Where nothing moves, nothing is likelier than chance.
    assert [len(frame.regions) for frame in selection.frames if frame.rank > 2] == [0, 0]
    assert best.regions[0].times_uniform == pytest.approx(6.0, rel=1e-4)
    assert best.regions[0].probability == pytest.approx(6.0 / selection.heat.sum(), rel=1e-4)
    assert [frame.time_s for frame in selection.frames] == [f.frame / 16 for f in selection.frames]


@given(st.integers(16, 900), st.integers(16, 900))
def test_square_windows_cover_the_whole_picture_and_boxes_its_every_pixel(w: int, h: int) -> None:
    lattice = Lattice(GRID, w, h)
    seen = np.zeros((lattice.rows, lattice.columns), int)
    for row, column in lattice.corners():
        assert row + GRID.side <= lattice.rows
        assert column + GRID.side <= lattice.columns
        seen[row : row + GRID.side, column : column + GRID.side] += 1
    assert seen.min() >= 1
    assert min(lattice.rows, lattice.columns) == GRID.side
    boxes = [lattice.box(0, c, lattice.rows - 1, c) for c in range(lattice.columns)]
    assert (boxes[0][:2], boxes[-1][2:]) == ([0, 0], [w, h])
    assert all(left[2] == right[0] for left, right in pairwise(boxes))


@pytest.mark.parametrize("count", [7, 8, 9, 12, 13, 31])
def test_clips_cover_every_frame_and_the_last_ends_with_the_video(count: int) -> None:
    frames = [torch.full((3, 1, 1), index, dtype=torch.uint8) for index in range(count)]
    windows = [
        (start, pixels[0, :, 0, 0].tolist()) for start, pixels in _windows(iter(frames), GRID)
    ]
    if count < 7:
        assert windows == []
        return
    padded = [*range(count), *[count - 1] * (count % 2)]
    for start, seen in windows:
        assert seen == padded[2 * start : 2 * start + 8]
    starts = [start for start, _ in windows]
    assert starts == sorted(set(starts))
    assert starts[-1] == (len(padded) - 8) // 2
    assert all(after - before <= 2 for before, after in pairwise(starts))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.data())
def test_there_are_always_k_slots_that_are_apart(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    chosen = apart(np.array(scores), k)
    assert len(chosen) == k
    assert scores[chosen[0]] == max(scores)
    nearest = np.diff(sorted(chosen)).min() if k > 1 else len(scores)
    assert nearest >= max(1, len(scores) // (2 * k))


def test_tokens_that_touch_along_an_edge_are_one_region() -> None:
    kept = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1]], bool)
    groups = sorted(sorted(group) for group in connected(kept))
    assert groups == [[(0, 0), (0, 1), (1, 1)], [(1, 3), (2, 3)], [(2, 0)]]


def test_tiny_network_of_the_package_prefers_what_moves_on_shapes_it_has_not_seen(
    tmp_path: Path,
) -> None:
    """Its training drew the clips of split `train`, seed 0."""
    assert TINY_SAMPLER.stat().st_size < 800_000
    found, aucs = tiny_sampler(), []
    for index in range(6):
        frames, motion = make_clip(32, 96, 5, "new", index, index, "clear")
        write_video(tmp_path / "v.mkv", frames, codec="lossless")
        heat = select_frames(found, tmp_path / "v.mkv", 1).heat
        shares = np.concatenate([token_motion(motion[i : i + 16 : 2], found.grid) for i in (0, 16)])
        aucs.append(
            ranking_auc(torch.tensor(heat.reshape(1, -1)), torch.tensor(shares[None] > 0.1))
        )
    assert np.mean(aucs) > 0.75


def test_command_writes_json_a_sheet_and_a_film(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    big = tmp_path / "big.mp4"
    write_video(big, (frame.repeat(4, 0).repeat(4, 1) for frame in all_frames(str(video))), 16)
    lines = list(select_video(big, k=3))
    out = tmp_path / "big_selected"
    assert sorted(path.name for path in out.iterdir()) == [
        "heat.mp4",
        "selection.json",
        "sheet.png",
    ]
    told = json.loads((out / "selection.json").read_text())
    assert [told[name] for name in ("width", "height", "num_frames")] == [384, 192, 64]
    assert [frame["time_s"] for frame in told["frames"]] == [
        f["frame"] / 16 for f in told["frames"]
    ]
    for frame in told["frames"]:
        for left, top, right, bottom in (region["box"] for region in frame["regions"]):
            assert 0 <= left < right <= 384
            assert 0 <= top < bottom <= 192
        parts = sum(region["probability"] for region in frame["regions"])
        assert frame["probability"] == pytest.approx(parts, rel=1e-3)
    assert "no real video" in told["knows"]
    assert told["knows"] in lines
    film = probe(str(out / "heat.mp4"))
    assert (film.num_frames, film.width, film.height, film.fps) == (64, 384, 192, 16.0)
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width == 1280
    again = select_frames(tiny_sampler(), big, 3)
    assert [frame.frame for frame in again.frames] == [frame["frame"] for frame in told["frames"]]


def test_loaded_model_selects_as_the_command_does(video: Path, tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    selection = tats_ray.load(run).select(video, 2)
    list(select_video(video, run=run, k=2, out=tmp_path / "out"))
    told = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert [frame.frame for frame in selection.frames] == [f["frame"] for f in told["frames"]]
    assert told["origin"] == "tats_ray run run, step 7"


def short(folder: Path) -> Path:
    write_video(folder / "short.mp4", np.zeros((9, 32, 32, 3), np.uint8))
    return folder / "short.mp4"


def test_what_cannot_be_selected_from_is_refused_in_one_line(video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    source, _ = official(tmp_path, encoder_only)
    run, tube = own_run(tmp_path / "run"), own_run(tmp_path / "tube", sampler="tube")
    cases: list[tuple[dict[str, Any], type[TatsError], str]] = [
        ({"run": tmp_path / "empty"}, CheckpointError, "holds no checkpoint; give a run folder"),
        ({"run": source}, UsageError, "nothing in it has learned which tokens to show"),
        ({"run": tube}, UsageError, r"nothing in it has learned .* \(sampler tube\); use a run"),
        ({"k": 17}, UsageError, "-k 17 asks for more frames than the 16 time slots of .*; use 16"),
        ({"k": 0}, UsageError, "-k 0 asks for no frame; use 1 or more"),
        ({"video": short(tmp_path)}, UsageError, "has 9 frames, and a clip of .* spans 16"),
        ({"video": tmp_path / "none.mp4"}, VideoError, "none.mp4: cannot be opened"),
        ({"video": tmp_path / "file"}, VideoError, r"is empty \(0 bytes\)"),
        (
            {"out": tmp_path / "file"},
            UsageError,
            "folder .*file cannot be made .*; use another --out",
        ),
        ({"out": Path("/proc/here")}, UsageError, "folder /proc/here cannot be made"),
    ]
    for given_, kind, says in cases:
        wanted = {"video": video, "out": tmp_path / "out", **given_}
        with pytest.raises(kind, match=says) as caught:
            list(select_video(**wanted))
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))
    assert list(select_video(video, run=run, k=16, out=tmp_path / "out"))


def test_sampler_that_has_not_learned_yet_is_refused(video: Path) -> None:
    class Indifferent(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(tokens.shape[:2])

    with pytest.raises(UsageError, match="equally likely, as one does that has not learned yet"):
        select_frames(Seer(Indifferent()), video, 2)


def test_video_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    for index, side in enumerate([32] * 20 + [48] * 20):
        Image.new("RGB", (side, 32)).save(tmp_path / f"img_{index:05d}.png")
    with pytest.raises(VideoError, match="changes its picture size from 32x32 to 48x32"):
        select_frames(Seer(), tmp_path, 1)


@pytest.mark.parametrize("room", [300, 3000])
def test_full_disk_leaves_whole_files_only(room: int, video: Path, tmp_path: Path) -> None:
    with files_limited_to(room), pytest.raises(UsageError, match=r"cannot be written \(File too"):
        list(select_video(video, k=2, out=tmp_path))
    for left in tmp_path.iterdir():
        assert left.name == "selection.json"
        json.loads(left.read_text())
