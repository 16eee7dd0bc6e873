from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import numbered_frames

from tats_ray.config.schema import DataConfig
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.encode import write_video
from tats_ray.data.readers import jumping
from tats_ray.data.readers.jumping import (
    JUMPING,
    Jumping,
    installed,
    label_of,
    named,
    read_jumping,
    why_missing,
)


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    """What is installed is looked up anew in each test."""
    for cached in (label_of, why_missing):
        cached.cache_clear()
    yield
    for cached in (label_of, why_missing):
        cached.cache_clear()


@pytest.mark.parametrize("reader", JUMPING)
def test_reader_that_is_named_and_not_installed_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Jumping
) -> None:
    for module in list(sys.modules):
        if module.split(".")[0] == reader:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, reader, None)
    (tmp_path / "v.mp4").touch()
    (tmp_path / "list.csv").write_text("v.mp4\n")
    data = DataConfig(train_list=str(tmp_path / "list.csv"), decoder=reader)
    with pytest.raises(
        UsageError, match=rf"data\.decoder {reader}: {reader} is not installed; pip"
    ):
        read_lists(data)
    assert reader not in installed()


def test_torchcodec_that_finds_no_ffmpeg_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(reader: Jumping) -> None:
        raise RuntimeError("Could not load libtorchcodec. Likely causes:\n  1. FFmpeg is not ...")

    monkeypatch.setattr(jumping, "_library", fail)
    assert why_missing("torchcodec").startswith("torchcodec finds no FFmpeg; install one of")
    with pytest.raises(UsageError, match="finds no FFmpeg"):
        read_jumping("v.mp4", lambda n: [0], "torchcodec")


def test_decord2_serves_as_decord_under_its_own_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package != "decord2":
            raise metadata.PackageNotFoundError(package)
        return "3.4.0"

    monkeypatch.setattr(jumping.metadata, "version", version)
    assert (label_of("decord"), label_of("torchcodec")) == ("decord 3.4.0", "")
    assert named("decord 3.4.0") == "decord"
    assert [named(label) for label in ("", "decord 0.6.0", "torchcodec 0.17.0")] == [None] * 3


@pytest.mark.parametrize("reader", JUMPING)
@pytest.mark.parametrize("expected", [7, 9])
def test_file_in_which_a_reader_counts_other_frames_is_a_video_error(
    tmp_path: Path, reader: Jumping, expected: int
) -> None:
    if missing := why_missing(reader):
        pytest.skip(missing)
    write_video(tmp_path / "v.mp4", numbered_frames(8))
    with pytest.raises(VideoError, match=f"{reader} counts 8 frames where {expected} are shown"):
        read_jumping(str(tmp_path / "v.mp4"), lambda n: [0], reader, expected=expected)
