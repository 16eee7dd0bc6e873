from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import numbered_frames, write_pictures

from tats_ray.data import decode
from tats_ray.data.catalog import examine as module
from tats_ray.data.catalog.examine import Examined, examine, labels
from tats_ray.data.catalog.video_index import IndexRow
from tats_ray.data.encode import Codec, write_video
from tats_ray.data.readers.jumping import installed

CLIPS = Path(__file__).parents[4].parent / "shared" / "clips"


def verdict(path: Path) -> IndexRow:
    *_, last = examine(str(path))
    assert last.is_final
    assert Examined.from_line(last.to_line()) == last
    return last.row


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "h264"), ("a.avi", "mpeg4")])
def test_sound_video_is_told_with_the_readers_that_were_tried(
    tmp_path: Path, name: str, codec: Codec
) -> None:
    write_video(tmp_path / name, numbered_frames(40), 25, codec)
    row = verdict(tmp_path / name)
    assert (row.reason, row.notes, row.is_checked, row.compared) == ("", "", True, labels())
    assert row.info is not None
    assert row.info.num_frames == 40
    assert "decord " in row.compared


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _hole(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(range(256)) * 8 + data[middle + 2048 :]


@pytest.mark.parametrize(
    ("name", "codec", "damage", "says"),
    [
        ("a.avi", "mpeg4", _cut, r"breaks after \d+ of \d+ frames: |ends after \d+ of the 60 fr"),
        ("a.avi", "mpeg4", _hole, r"breaks after \d+ of \d+ frames: .*is damaged \(mpeg4: "),
        ("a.mkv", "h264", _hole, r"breaks after \d+ of \d+ frames: (is damaged|cannot be decoded)"),
        ("a.mp4", "h264", _cut, r"^cannot be decoded"),
        ("a.mp4", "h264", lambda data: b"", r"^is empty \(0 bytes\)$"),
        ("a.mp4", "h264", lambda data: b"<html>Not found</html>" * 99, r"^cannot be decoded"),
    ],
)
def test_stream_that_breaks_is_told_with_the_place(
    tmp_path: Path, name: str, codec: Codec, damage: Any, says: str
) -> None:
    path = tmp_path / name
    write_video(path, numbered_frames(60), 25, codec)
    path.write_bytes(damage(path.read_bytes()))
    row = verdict(path)
    assert re.search(says, row.reason), row.reason


def test_avi_that_was_cut_between_two_frames_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.avi", numbered_frames(20), 25, "mpeg4")
    monkeypatch.setattr(module, "announced", lambda path: (50, 20))
    row = verdict(tmp_path / "a.avi")
    assert row.reason == "ends after 20 of the 50 frames that it announces"


def test_frames_are_counted_anew_where_there_are_more_than_at_first_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.avi", numbered_frames(20), 25, "mpeg4")
    few = replace(decode.probe(str(tmp_path / "a.avi")), num_frames=18)
    monkeypatch.setattr(module, "probe", lambda path: few)
    row = verdict(tmp_path / "a.avi")
    assert (row.reason, row.info and row.info.num_frames) == ("", 20)


def test_repeated_frames_are_noted_and_not_broken(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "v", 10)
    for number in (3, 7, 8):
        before = folder / f"img_{number - 1:05d}.jpg"
        (folder / f"img_{number:05d}.jpg").write_bytes(before.read_bytes())
    row = verdict(folder)
    assert (row.reason, row.notes) == ("", "repeats the frame before in 3 of 10 frames")


def test_what_is_known_is_told_before_each_reader_is_tried(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered_frames(8))
    found = list(examine(str(tmp_path / "a.mp4")))
    assert [each.trying for each in found] == [*installed(), ""]
    # The last one also knows the fastest reader, which is a matter of time.
    known = decode.probe(str(tmp_path / "a.mp4"))
    fixed = {"reader": known.reader, "jumps_pay": known.jumps_pay}
    assert {each.row.info and replace(each.row.info, **fixed) for each in found} == {known}


def test_folder_of_frames_is_examined(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "v", 6)
    assert verdict(folder).reason == ""
    data = (folder / "img_00004.jpg").read_bytes()
    (folder / "img_00004.jpg").write_bytes(data[: len(data) // 2])
    assert verdict(folder).reason.startswith("breaks after 3 of 6 frames: img_00004.jpg cannot be")


@pytest.mark.long  # 20 s: 68 files are decoded twice
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real videos are not here")
def test_of_the_real_videos_those_that_are_broken_are_told_and_no_others() -> None:
    names = [row["file"] for row in json.loads((CLIPS / "manifest.json").read_text())]
    found = {name: verdict(CLIPS / name) for name in names}
    broken = {Path(name).name: row.reason for name, row in found.items() if row.reason}
    assert {name: reason.split()[0] for name, reason in broken.items()} == {
        "aac-only.avi": "has",
        "mp3-only.avi": "has",
        "corrupted.mp4": "breaks",
        "dog_truncated_moov_first.mp4": "breaks",
        "dog_truncated_no_moov.mp4": "cannot",
        "dog_truncated_xvid.avi": "breaks",
        "text_not_video.mp4": "cannot",
        "zero_bytes.mp4": "is",
    }
    assert len(found) - len(broken) == 60
    wrong = [row for row in found.values() if "decord" in row.notes]
    assert len(wrong) >= 10  # their frames, counts, or that it reads nothing
    assert not any(row.info and row.info.reader.startswith("decord") for row in wrong)
