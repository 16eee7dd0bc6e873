from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import numbered_frames, read_numbers

from tats_ray.core.errors import VideoError
from tats_ray.data import decode
from tats_ray.data.catalog.video_index import open_index
from tats_ray.data.decode import all_frames, probe
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.data.readers import comparison as module
from tats_ray.data.readers.comparison import Comparison, checksum, first_look
from tats_ray.data.readers.jumping import JUMPING, Jumping, label_of, why_missing

LENGTH = 120


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("compared") / "v.mp4"
    write_video(path, numbered_frames(LENGTH), 25, gop=6, num_b_frames=2)
    return str(path)


def compared(path: str) -> Comparison:
    return Comparison(path, probe(path), [checksum(frame) for frame in all_frames(path)])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What each reader takes, as the clock tells it, and what it gets wrong."""
    costs = {"pyav": 10.0, "decord": 1.0, "torchcodec": 2.0}
    now = [0.0]
    original = decode.read_frames

    def read(path: str, choose: Any, *, backend: str) -> np.ndarray:
        now[0] += costs[backend]
        return original(path, choose, backend="pyav")

    monkeypatch.setattr(module, "read_frames", read)
    monkeypatch.setattr(module.time, "process_time", lambda: now[0])
    monkeypatch.setattr(module, "label_of", lambda reader: f"{reader} 1")
    return costs


@pytest.mark.parametrize(
    ("decord_s", "torchcodec_s", "fastest"),
    [
        (1.0, 2.0, "decord 1"),
        (2.0, 1.0, "torchcodec 1"),
        (9.5, 30.0, ""),
        (9.5, 8.0, "torchcodec 1"),
    ],
)
def test_fastest_of_the_exact_readers_is_taken_if_it_saves_a_tenth(
    video: str, clock: dict[str, float], decord_s: float, torchcodec_s: float, fastest: str
) -> None:
    clock.update(decord=decord_s, torchcodec=torchcodec_s)
    comparison = compared(video)
    assert [comparison.add(reader) for reader in JUMPING] == ["", ""]
    assert comparison.fastest == fastest


@pytest.mark.parametrize("wrong", ["one later", "one bit", "one fewer", "nothing"])
def test_reader_that_shows_other_frames_is_never_taken(
    video: str, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    original = decode.read_frames

    def read(path: str, choose: Any, *, backend: str) -> np.ndarray:
        if backend == "pyav":
            return original(path, choose, backend="pyav")
        if wrong == "nothing":
            raise VideoError(path, "decord cannot open it (for no reason)")
        if wrong == "one fewer":
            choose(LENGTH - 1)
        chosen = choose(LENGTH)
        later = (wrong == "one later") and 99 in chosen
        frames = original(
            path, lambda n: [min(i + later, n - 1) for i in chosen], backend="pyav"
        ).copy()
        frames[-1, 3, 3, 0] ^= wrong == "one bit"
        return frames

    monkeypatch.setattr(module, "read_frames", read)
    monkeypatch.setattr(module, "_SHARE", 1e9)
    comparison = compared(video)
    note = comparison.add("decord")
    assert comparison.fastest == ""
    assert (
        note
        == {
            "one later": "decord shows 16 of 50 frames otherwise",
            "one bit": "decord shows 3 of 50 frames otherwise",
            "one fewer": "decord counts 119 frames, not 120",
            "nothing": "decord cannot read it",
        }[wrong]
    )


@pytest.mark.parametrize("reader", JUMPING)
def test_reader_is_found_exact_on_a_plain_file(
    video: str, reader: Jumping, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := why_missing(reader):
        pytest.skip(missing)
    monkeypatch.setattr(module, "_SHARE", 1e9)
    comparison = compared(video)
    assert (comparison.add(reader), comparison.fastest) == ("", label_of(reader))


def test_long_video_gets_its_reader_at_first_sight_and_a_short_one_reads_with_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_FRAMES", 300)
    monkeypatch.setattr(module, "_SHARE", 1e9)
    write_video(tmp_path / "long.mp4", np.tile(numbered_frames(250), (3, 1, 1, 1)), 25)
    write_video(tmp_path / "short.mp4", numbered_frames(100), 25)
    (tmp_path / "list.csv").write_text("long.mp4\nshort.mp4\n")
    long, short = read_list(tmp_path / "list.csv")
    assert short.probe().reader == ""
    assert long.probe().reader in {label_of(reader) for reader in JUMPING}
    open_index.cache_clear()
    monkeypatch.setattr(module, "probe", None)  # no file is opened again
    (again, _) = read_list(tmp_path / "list.csv")
    assert again.probe().reader == long.probe().reader
    frames = decode.read_frames(again.path, lambda n: [n - 1, 3], look=again.probe)
    assert read_numbers(frames) == [249, 3]


def test_first_look_at_a_file_that_breaks_leaves_it_to_pyav(
    video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> Any:
        yield np.zeros((64, 64, 3), np.uint8)
        raise VideoError(path, "breaks")

    monkeypatch.setattr(decode, "_CLIP_SPAN", -99)
    decode._probe.cache_clear()
    monkeypatch.setattr(module, "all_frames", broken)
    assert first_look(video).reader == ""
    assert first_look(video).num_frames == LENGTH
    decode._probe.cache_clear()
