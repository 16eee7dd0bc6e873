from __future__ import annotations

import json
import math
import re
import resource
from pathlib import Path

import pytest
from scripted import note, record, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tats_ray.core.errors import StorageError
from tats_ray.view.tracking import RunFiles, read_bad_videos, read_metrics


def _steps(run: Path) -> list[float]:
    return [line["step"] for line in read_metrics(run)]


def test_each_metrics_event_becomes_one_flat_line(tmp_path: Path) -> None:
    with RunFiles(tmp_path) as files:
        for event in (start(), record(6, 101.5, mae__loss=0.9), note("hello")):
            files.on_event(event)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 6, "epoch": 0, "time": 101.5, "mae/loss": 0.9}
    ]


def test_values_that_are_not_finite_are_null_on_disk_and_nan_when_read(tmp_path: Path) -> None:
    with RunFiles(tmp_path) as files:
        files.on_event(record(6, 0.0, mae__loss=math.nan, mae__lr=math.inf, env__reward=0.5))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (line["mae/loss"], line["mae/lr"], line["env/reward"]) == (None, None, 0.5)
    (read,) = read_metrics(tmp_path)
    assert math.isnan(read["mae/loss"])
    assert math.isnan(read["mae/lr"])


def test_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    with RunFiles(tmp_path) as files:
        for event in (start(), *(record(step, 0.0, mae__loss=1.0) for step in (10, 20, 30))):
            files.on_event(event)
    with RunFiles(tmp_path) as files:
        files.on_event(start(20, is_resumed=True))
        assert _steps(tmp_path) == [10, 20]
        for step in (30, 40):
            files.on_event(record(step, 0.0, mae__loss=0.5))
    assert _steps(tmp_path) == [10, 20, 30, 40]
    assert read_metrics(tmp_path)[2]["mae/loss"] == 0.5


def test_restart_within_a_session_rewinds_too(tmp_path: Path) -> None:
    with RunFiles(tmp_path) as files:
        for event in (
            start(),
            record(10, 0.0, mae__loss=1.0),
            start(0),  # the learners were lost before the first checkpoint
            record(10, 0.0, mae__loss=0.9),
        ):
            files.on_event(event)
    assert [line["mae/loss"] for line in read_metrics(tmp_path)] == [0.9]


@pytest.mark.parametrize("is_resumed", [True, False])
def test_half_written_last_line_is_skipped_and_harms_no_later_one(
    tmp_path: Path, is_resumed: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "epoch": 1, "time": 0.0}\n{"step": 20, "epo')
    assert _steps(tmp_path) == [10]
    with RunFiles(tmp_path) as files:
        if is_resumed:
            files.on_event(start(10, is_resumed=True))
        files.on_event(record(20, 0.0, mae__loss=1.0))
    assert _steps(tmp_path) == [10, 20]


def test_cut_inside_a_character_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 10}\n{"step": "\xc3')
    assert _steps(tmp_path) == [10]


def test_run_without_metrics_reads_as_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_tensorboard_has_the_same_names_and_no_step_twice(tmp_path: Path) -> None:
    with RunFiles(tmp_path) as files:
        for event in (start(), *(record(step, 0.0, mae__loss=1.0) for step in (10, 20, 30))):
            files.on_event(event)
    with RunFiles(tmp_path) as files:
        files.on_event(start(20, is_resumed=True))
        files.on_event(record(30, 0.0, mae__loss=0.5, env__reward=0.1))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"mae/loss", "env/reward"}
    assert [(e.step, e.value) for e in read.Scalars("mae/loss")] == [
        (10, 1.0),
        (20, 1.0),
        (30, 0.5),
    ]


# The limit may also meet TensorBoard's writing thread; its copy is given up, with a note.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_record_that_a_full_disk_cuts_off_is_written_whole_once_there_is_room(
    tmp_path: Path,
) -> None:
    """A limit on the size of files breaks a write in the middle, as a full disk does."""
    notes: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room(text: str) -> None:
        notes.append(text)
        size.append((tmp_path / "metrics.jsonl").stat().st_size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    size: list[int] = []
    with RunFiles(tmp_path, retry_s=60, on_note=make_room) as files:
        files.on_event(record(1, 0.0, mae__loss=1.0))
        whole = (tmp_path / "metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 20, hard))
        try:
            files.on_event(record(2, 0.0, mae__loss=1.0))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert size[0] == whole  # nothing of the record was left
    assert re.search(r"metrics\.jsonl of the run could not be written: .*; retrying", notes[0])
    assert "was written after" in notes[1]
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2]


def test_storage_that_stays_full_ends_with_the_cause(tmp_path: Path) -> None:
    with RunFiles(tmp_path, retry_s=0.1) as files:
        files.on_event(record(1, 0.0, mae__loss=1.0))
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").mkdir()
        with pytest.raises(StorageError, match=r"metrics\.jsonl .*for 0\.1 s: .*Is a directory"):
            files.on_event(record(2, 0.0, mae__loss=1.0))


def test_bad_videos_are_listed_in_a_file_and_the_first_are_noted(tmp_path: Path) -> None:
    notes: list[str] = []
    found = {f"{name}.mp4": 'no "moov", or cut' for name in "abcd"}
    for _ in range(2):  # a run that is continued finds them again
        with RunFiles(tmp_path, on_note=notes.append) as files:
            files.on_event({"kind": "unreadable", "videos": found, "time": 0.0})
            files.on_event({"kind": "unreadable", "videos": {"e, f.mp4": "cut"}, "time": 0.0})
    (note,) = notes
    assert note.startswith('videos that could not be read: a.mp4 (no "moov", or cut), b.mp4 (')
    assert note.endswith(f" and 1 more; {tmp_path / 'bad_videos.csv'} names them all")
    assert read_bad_videos(tmp_path) == {**found, "e, f.mp4": "cut"}
    lines = (tmp_path / "bad_videos.csv").read_text().splitlines()
    assert lines[0] == "path,reason"
    assert lines[-1] == '"e, f.mp4",cut'
