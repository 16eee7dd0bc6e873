"""`tats status` and `tats logs` of the runs of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tats_ray.checkpoints.format import Parts, save_parts
from tats_ray.cluster import submit
from tats_ray.core.folder_lock import only_run_in
from tats_ray.core.types import Position
from tats_ray.runs.run_record import record_board, record_end, record_logs
from tats_ray.view.progress import BoardPlan
from tats_ray.view.tracking import RunFiles
from tests.commands import refusal, tats


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two records and a checkpoint in runs/ of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: mine\nloop: {epochs: 8}\n")
    (folder / "run.json").write_text("{}")
    records = [
        {"step": 4, "epoch": 1, "time": 1.0, "eval/error": 0.9},
        {"step": 6, "epoch": 2, "time": 2.0, "mae/loss": 0.8},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    long_ago = time.time() - 180
    os.utime(folder / "metrics.jsonl", (long_ago, long_ago))
    save_parts(folder, Parts(Position(step=4, epoch=1), {}, "name: mine\n"), keep_last=1)
    return folder.relative_to(tmp_path)


def output(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    tats(*words)
    return capsys.readouterr().out


def test_status_of_a_run_says_how_far_it_is_and_how_it_ended(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = output(capsys, "status", run)
    assert "state  not running; it did not say how it ended, so it was probably killed" in said
    assert "reached  step 6, epoch 2 of 8" in said
    assert "error  eval/error 0.900" in said
    assert re.search(r"last record  3m\d\ds ago", said)
    assert "checkpoint  runs/mine/checkpoints/step_00000004" in said
    (run / "config.yaml").write_text("name: mine\nloop: {epochs: 1}\n")
    assert "state  finished" in output(capsys, "status", run)  # a run of version 0.1 wrote no end
    record_end(run, "failed", "the MAE loss is nan")
    assert "state  failed: the MAE loss is nan" in output(capsys, "status")  # the only one here
    with only_run_in(run):
        assert f"state  running: process {os.getpid()} on host" in output(capsys, "status", run)


def test_status_alone_lists_the_runs_of_a_folder_or_asks_a_cluster(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    place = Path.cwd()
    monkeypatch.setattr(submit, "show_status", lambda address: asked.append(address))
    other = run.parent / "other"
    other.mkdir()
    (other / "config.yaml").write_text("name: other\n")
    (other / "run.json").write_text('{"ended": {"state": "finished"}}')
    for words in ([], ["runs"]):
        said = output(capsys, "status", *words)
        assert "runs/mine" in said
        assert "finished" in said
    assert asked == []
    tats("status", "--address", "http://there:8265")
    monkeypatch.chdir("/proc/self/fdinfo")
    tats("status")
    assert asked == ["http://there:8265", ""]
    monkeypatch.chdir(place)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://there:8265")
    assert "runs/mine" in output(capsys, "status")
    assert len(asked) == 3
    assert "nowhere is no run folder and holds none" in refusal(capsys, "status", "nowhere")
    assert "unexpected --nope" in refusal(capsys, "status", "--nope")


def test_logs_of_a_run_show_the_last_lines_and_the_place(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the logs of its processes are not here (none recorded)" in refusal(capsys, "logs", run)
    place = tmp_path / "session" / "logs"
    place.mkdir(parents=True)
    (place / "worker-1.err").write_text("".join(f"line {n}\n" for n in range(30)))
    (place / "worker-2.out").touch()
    record_logs(run, str(place))
    for words in ([], [run]):
        said = output(capsys, "logs", *words)
        assert "== worker-1.err\nline 10\n" in said
        assert "line 29" in said
        assert "worker-2" not in said
        assert f"all logs  {place}" in said
    asked: list[str] = []
    monkeypatch.setattr(submit, "follow", lambda job, address: asked.append(job))
    tats("logs", "tats-job-1")
    assert asked == ["tats-job-1"]


def test_status_of_a_broken_configuration_does_not_hide_the_other_runs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run.parent / "other"
    other.mkdir()
    (other / "config.yaml").write_text("- a\n")
    (other / "run.json").write_text("{}")
    said = output(capsys, "status")
    assert "must be a mapping of fields" in said
    assert "step 6, epoch 2 of 8" in said


def test_status_takes_a_run_or_an_address(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "status", str(run), "--address", "http://127.0.0.1:1")
    assert "give a run folder or --address, and not both" in said


BOARD = BoardPlan(
    name="mine",
    total_steps=16,
    total_epochs=8,
    steps_per_epoch=2,
    mae_only_epochs=4,
    num_tokens=256,
    num_visible=25,
)


def tell(run: Path, *steps: int) -> None:
    """What a run writes as it goes: a start, records, a note and a checkpoint."""
    with RunFiles(run) as files:
        if steps[0] == 2:
            files.on_event({"kind": "start", "step": 0, "is_resumed": False, "time": 0.5})
        for step in steps:
            loss = {"mae/loss": 1 - step / 100}
            files.on_event(
                {"kind": "metrics", "step": step, "epoch": 0, "time": 3.0 * step, "metrics": loss}
            )
        at = 3.0 * steps[-1] + 1
        files.on_event({"kind": "note", "text": f"seen at {steps[-1]}", "time": at})
        path = str(run / "checkpoints" / "x")
        files.on_event({"kind": "checkpoint", "step": steps[-1], "path": path, "time": at + 1})


def test_a_run_that_is_over_is_shown_as_its_own_terminal_did(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_board(run, BOARD)
    tell(run, 2, 4)
    record_end(run, "finished")
    lines = output(capsys, "watch", run).splitlines()
    assert lines[0] == "start  mine: FRESH START of 16 steps, 8 epochs"
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["2/16", "4/16"]
    assert lines[-3:] == [
        "note   seen at 4",
        "saved  step 4  runs/mine/checkpoints/x",
        "runs/mine: finished",
    ]
    assert "mine" in output(capsys, "watch", "--mode", "board")


def test_a_run_that_goes_on_is_followed_until_it_ends(run: Path) -> None:
    record_board(run, BOARD)
    with only_run_in(run):
        tell(run, 2)
        command = [sys.executable, "-m", "tats_ray", "watch", str(run)]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watcher.stdout is not None
        seen = [watcher.stdout.readline() for _ in range(4)]
        assert "seen at 2" in "".join(seen)
        tell(run, 4, 6)
        assert "step   4/16" in watcher.stdout.readline()
        record_end(run, "failed", "the MAE loss is nan")
    rest, _ = watcher.communicate(timeout=60)
    assert rest.splitlines()[-1] == "runs/mine: failed: the MAE loss is nan"
    assert watcher.returncode == 0


def test_a_run_without_anything_to_show_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, "watch", run)
    assert "runs/mine has no record to watch (not running" in said
    assert "elsewhere does not exist; `tats status` lists" in refusal(capsys, "watch", "elsewhere")


def test_what_is_written_late_is_shown_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of a learner arrive after a note that the driver stamped later."""
    record_board(run, BOARD)
    tell(run, 2)
    with only_run_in(run):
        command = [sys.executable, "-m", "tats_ray", "watch", str(run)]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watcher.stdout is not None
        seen = list(iter(watcher.stdout.readline, f"saved  step 2  {run}/checkpoints/x\n"))
        assert "seen at 2" in "".join(seen)
        with RunFiles(run) as files:
            late = {"kind": "metrics", "step": 4, "epoch": 1, "time": 6.5}
            files.on_event({**late, "metrics": {"eval/error": 0.5}})
        assert "validation error 0.500" in watcher.stdout.readline()
    watcher.communicate(timeout=60)
