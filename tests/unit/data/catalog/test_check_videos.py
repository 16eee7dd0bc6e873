from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from conftest import numbered_frames

from tats_ray.__main__ import main
from tats_ray.core.errors import UsageError
from tats_ray.data.catalog import check_videos
from tats_ray.data.catalog.check_videos import check_list
from tats_ray.data.catalog.examine import labels
from tats_ray.data.catalog.video_index import IndexRow, open_index
from tats_ray.data.decode import VideoInfo
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.view.tracking import read_bad_videos
from tests.full_disk import disk_full_at

HASTY = """
import json, sys, time
from tats_ray.data.catalog.examine import examine
sys.stdout.write("\\n")
for line in sys.stdin:
    sys.stdout.write("".join(found.to_line() + "\\n" for found in examine(json.loads(line))))
    sys.stdout.flush()
"""
FAULTY = """
import os, time
from tats_ray.data.catalog import examine
from tats_ray.data.readers import comparison

probe, read_frames = examine.probe, comparison.read_frames

def odd_probe(path):
    if "dies" in path:
        os.kill(os.getpid(), 11)
    if "hangs" in path:
        time.sleep(600)
    return probe(path)

def odd_read(path, choose, *, backend):
    if "spins" in path and backend == "decord":
        time.sleep(600)
    if "aborts" in path and backend == "decord":
        os.abort()
    return read_frames(path, choose, backend=backend)

examine.probe, comparison.read_frames = odd_probe, odd_read
examine.main()
"""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A list of four sound videos and two that are none."""
    lines = []
    for n in range(4):
        write_video(tmp_path / f"v{n}.mp4", numbered_frames(8 + n))
        lines.append(f"v{n}.mp4\t{n}\n")
    (tmp_path / "empty, 0.mp4").touch()
    (tmp_path / "text.avi").write_text("not a film\n" * 99)
    path = tmp_path / "train.csv"
    path.write_text("".join([*lines, "empty, 0.mp4\t7\n", "text.avi\t7\n"]))
    return path


def test_command_writes_sound_and_broken_videos_and_fails(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(videos), "-j", "2"])
    out, error = capsys.readouterr()
    assert caught.value.code == 1
    assert "2 of 6 videos cannot be read" in error.splitlines()[-1]
    assert "6 videos: 4 sound (" in out
    folder = videos.parent
    assert [(Path(e.path).name, e.label) for e in read_list(folder / "train_ok.csv")] == [
        (f"v{n}.mp4", n) for n in range(4)
    ]
    # The same form and words as what a run leaves behind.
    (folder / "train_bad.csv").rename(folder / "bad_videos.csv")
    bad = read_bad_videos(folder)
    assert [Path(path).name for path in bad] == ["empty, 0.mp4", "text.avi"]
    assert bad[str(folder / "empty, 0.mp4")] == "is empty (0 bytes)"
    assert bad[str(folder / "text.avi")].startswith("cannot be decoded (")


def test_list_of_sound_videos_passes_and_needs_no_second_look(videos: Path) -> None:
    with pytest.raises(SystemExit):
        main(["data", "check", str(videos)])
    open_index.cache_clear()
    sound = videos.with_name("train_ok.csv")
    assert all(e.index and e.index.find(e.path) for e in read_list(sound))
    main(["data", "check", str(sound)])
    assert (videos.with_name("train_ok_bad.csv")).read_text().split() == ["path,reason"]


def test_check_that_was_stopped_goes_on_where_it_was(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_list(videos, on_progress=stop)
    assert not videos.with_name("train_ok.csv").exists()
    examined: list[str] = []
    begin = check_videos._Child.begin

    def counting(self: check_videos._Child, video: str) -> None:
        examined.append(Path(video).name)
        begin(self, video)

    monkeypatch.setattr(check_videos._Child, "begin", counting)
    open_index.cache_clear()
    told: list[tuple[int, int]] = []
    checked = check_list(videos, on_progress=lambda *progress: told.append(progress))
    assert examined == ["v3.mp4", "empty, 0.mp4", "text.avi"]
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert len(checked.broken) == 2


def test_file_that_kills_or_stalls_a_reader_costs_that_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files end the process or its time, and one is kept from decord alone."""
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    monkeypatch.setattr(check_videos, "_COMMAND", [sys.executable, str(script)])
    names = ["a", "dies", "hangs", "spins", "aborts", "z"]
    for name in names:
        write_video(tmp_path / f"{name}.mp4", numbered_frames(8))
    (tmp_path / "list.csv").write_text("".join(f"{name}.mp4\n" for name in names))
    checked = check_list(tmp_path / "list.csv", limit_s=2)
    rows = {Path(path).stem: row for path, row in checked.rows.items()}
    assert {name: row.reason for name, row in rows.items() if row.reason} == {
        "dies": "cannot be decoded (the decoder crashes (signal 11))",
        "hangs": "cannot be decoded (the decoder takes over 2 s)",
    }
    assert rows["spins"].notes == "decord takes over 2 s"
    assert rows["aborts"].notes == "decord crashes (signal 6)"
    assert {rows[name].compared for name in ("a", "spins", "aborts", "z")} == {labels()}
    with (tmp_path / "list_bad.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 3


def test_lines_that_arrive_together_are_all_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "hasty.py"
    script.write_text(HASTY)
    monkeypatch.setattr(check_videos, "_COMMAND", [sys.executable, str(script)])
    write_video(tmp_path / "a.mp4", numbered_frames(8))
    (tmp_path / "list.csv").write_text("a.mp4\n")
    checked = check_list(tmp_path / "list.csv", limit_s=5)
    (row,) = checked.rows.values()
    assert (row.reason, row.notes) == ("", "")
    assert row.info is not None
    assert row.compared == labels()


def test_video_that_was_not_compared_with_a_reader_of_this_machine_is_looked_at_again(
    videos: Path,
) -> None:
    """As after the installation of another reader, or of another version."""
    entry = read_list(videos)[0]
    assert entry.index is not None
    for compared, is_known in (("decord 0.0.1", False), (f"x 1; {labels()}", True), ("", False)):
        entry.index.add(
            entry.path, IndexRow(VideoInfo(8, 64, 64, 25.0, "h264"), True, "", "", compared)
        )
        assert (check_videos._known(entry.index, entry.path) is not None) == is_known


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{}", "-j", "0"], "-j 0 and --limit-s 60 must be above 0"),
        (["{}", "--limit-s", "0"], "must be above 0"),
        (["nowhere.csv"], "the list cannot be read"),
    ],
)
def test_wrong_request_ends_in_one_line(
    videos: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", *(word.format(videos) for word in words)])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_results_go_into_another_folder_for_a_list_that_takes_none(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(videos.parent.iterdir())
    monkeypatch.chdir(videos.parent)
    out = tmp_path / "results"
    with pytest.raises(SystemExit):
        main(["data", "check", videos.name, "--out", str(out)])
    assert sorted(path for path in videos.parent.iterdir() if path != out) == before
    assert {path.name for path in out.iterdir()} == {
        "train.index", "train_ok.csv", "train_ok.index", "train_bad.csv",
    }  # fmt: skip
    monkeypatch.chdir(out)
    entries = read_list("train_ok.csv")
    assert [entry.path for entry in entries] == [str(videos.parent / f"v{n}.mp4") for n in range(4)]
    monkeypatch.setattr("tats_ray.data.catalog.video_index.first_look", lambda _: 1 / 0)
    assert [entry.probe().num_frames for entry in entries] == [8, 9, 10, 11]
    examined: list[str] = []
    original = check_videos._examine_all

    def counting(left: list[str], *rest: object) -> object:
        examined.extend(left)
        return original(left, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(check_videos, "_examine_all", counting)
    check_list(videos, out=out)
    assert [Path(path).name for path in examined] == ["empty, 0.mp4", "text.avi"]


def test_full_disk_is_one_line_and_what_was_decoded_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", numbered_frames(8))
    (tmp_path / "list.csv").write_text("a.mp4 3\na.mp4 3\n")  # twice, and looked at once
    with (
        disk_full_at(".list_ok.csv.draft"),
        pytest.raises(UsageError, match=r"cannot be written \(No space left on device\)"),
    ):
        check_list(tmp_path / "list.csv")
    assert not (tmp_path / "list_ok.csv").exists()
    monkeypatch.setattr(
        check_videos, "_examine_all", lambda left, *_: iter([(1 / 0) for _ in left])
    )
    open_index.cache_clear()
    checked = check_list(tmp_path / "list.csv")
    assert len(checked.rows) == 1
    assert f"note: listed more than once: {tmp_path}/a.mp4" in str(checked).splitlines()
    assert [e.label for e in read_list(tmp_path / "list_ok.csv")] == [3, 3]
