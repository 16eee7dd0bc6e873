"""Trackers get what a run tells, and a tracker that fails or hangs never holds the run up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tats_ray.core.errors import UsageError
from tats_ray.view import trackers
from tats_ray.view.trackers import TrackedRun, Trackers, require_trackers


class Listener:
    """A tracker that notes down all it gets."""

    def __init__(self) -> None:
        self.records: list[tuple[int, Mapping[str, float]]] = []
        self.files: list[str] = []
        self.ending = ""

    def log(self, metrics: Mapping[str, float], step: int, time_s: float) -> None:
        self.records.append((step, metrics))

    def attach(self, path: Path) -> None:
        self.files.append(path.name)

    def close(self, how: str) -> None:
        self.ending = how


Opened = Callable[..., Trackers]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def open_with(tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Trackers whose `wandb` is the given one."""

    def opened(make: Callable[..., Listener], patience_s: float = 10.0) -> Trackers:
        monkeypatch.setitem(trackers._OPEN, "wandb", make)
        run = TrackedRun(tmp_path, "mine", {"seed": 0})
        return Trackers(["wandb"], run, on_note=notes.append, patience_s=patience_s)

    return opened


def tell(sent: Trackers, *steps: int) -> None:
    for step in steps:
        sent.on_event({"kind": "note", "text": "not a record"})
        sent.on_event({"kind": "metrics", "step": step, "time": 1.0, "metrics": {"mae/loss": 0.5}})


def test_a_tracker_gets_all_records_in_order_and_then_the_pictures(
    open_with: Opened, notes: list[str]
) -> None:
    listener = Listener()
    with open_with(lambda run, note: listener) as sent:
        tell(sent, 1, 2, 3)
        sent.attach([Path("masks_1.png"), Path("report.html")])
    assert listener.records == [(step, {"mae/loss": 0.5}) for step in (1, 2, 3)]
    assert listener.files == ["masks_1.png", "report.html"]
    assert listener.ending == "finished"
    assert notes == []


def test_a_tracker_is_told_how_the_run_ended(open_with: Opened) -> None:
    failed, stopped = Listener(), Listener()
    with pytest.raises(ValueError, match="nan"), open_with(lambda *args: failed):
        raise ValueError("the loss is nan")
    with open_with(lambda *args: stopped) as sent:
        sent.ending = "stopped"
    assert (failed.ending, stopped.ending) == ("failed", "stopped")


def test_trackers_that_start_together_keep_both_ids(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str) -> Callable[..., Listener]:
        def opened(run: TrackedRun, note: object) -> Listener:
            trackers._id_of(run, name, lambda: time.sleep(0.2) or name)
            return Listener()

        return opened

    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(trackers._OPEN, name, make(name))
    with Trackers(["wandb", "mlflow"], TrackedRun(tmp_path, "a", {}), on_note=notes.append):
        pass
    kept = json.loads((tmp_path / "trackers.json").read_text())
    assert kept == {"wandb": "wandb", "mlflow": "mlflow"}


def test_a_tracker_that_hangs_costs_the_run_nothing_and_is_named(
    open_with: Opened, notes: list[str]
) -> None:
    forever = threading.Event()

    def hang(*args: object) -> Listener:
        forever.wait(60)
        raise AssertionError("nobody waits that long")

    started = time.monotonic()
    with open_with(hang, patience_s=0.2) as sent:
        tell(sent, *range(5000))
        told = time.monotonic() - started
    assert told < 2.0  # under a millisecond for a record, thousands of them lost
    assert time.monotonic() - started < 3.0
    assert notes == ["wandb could not take all records; metrics.jsonl has them all"]
    forever.set()


def test_a_slow_tracker_loses_records_and_says_how_many(
    open_with: Opened, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_ROOM", 5)
    gate, listener = threading.Event(), Listener()

    def late(*args: object) -> Listener:
        gate.wait(60)
        return listener

    sent = open_with(late)
    tell(sent, *range(8))
    gate.set()
    while len(listener.records) < 5:
        time.sleep(0.01)
    sent.close()
    assert [step for step, _ in listener.records] == [0, 1, 2, 3, 4]
    assert notes == ["wandb was too slow for 3 records; metrics.jsonl has them all"]


@pytest.mark.parametrize("where", ["open", "log"])
def test_a_tracker_that_fails_is_given_up_with_one_line(
    open_with: Opened, notes: list[str], where: str
) -> None:
    class Broken(Listener):
        def log(self, metrics: Mapping[str, float], step: int, time_s: float) -> None:
            raise OSError("no space left\nmore")

    def fail(*args: object) -> Listener:
        raise OSError("no space left\nmore")

    with open_with(fail if where == "open" else (lambda *args: Broken())) as sent:
        tell(sent, 1, 2)
    assert notes == [
        "wandb failed and gets no more records: no space left; metrics.jsonl has them all"
    ]


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    require_trackers(["tensorboard"])
    with pytest.raises(UsageError, match="mlflow, which is not installed; pip install mlflow"):
        require_trackers(["tensorboard", "mlflow"])


def test_wandb_keeps_a_run_offline_under_one_id(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = TrackedRun(tmp_path, "mine", {"seed": 0}, group="sweep")
    for first in (1, 4):
        with Trackers(["wandb"], run, on_note=notes.append, patience_s=60) as sent:
            tell(sent, first, first + 1)
    (name,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{name}"))) == 2
    assert {note.split(";")[0] for note in notes} == {f"wandb keeps this run in {tmp_path}/wandb"}


def test_mlflow_has_records_fields_and_pictures_of_a_resumed_run_under_one_id(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "masks_1.png").write_bytes(b"\x89PNG")
    run = TrackedRun(folder, "mine", {f"field.{n}": n for n in range(150)}, group="sweep")
    for first in (1, 4):
        with Trackers(["mlflow"], run, on_note=notes.append, patience_s=60) as sent:
            tell(sent, first, first + 1)
            sent.attach([folder / "masks_1.png"])
    (name,) = json.loads((folder / "trackers.json").read_text()).values()
    client = MlflowClient((tmp_path / "runs" / "mlruns").as_uri())
    history = client.get_metric_history(name, "mae/loss")
    assert sorted(point.step for point in history) == [1, 2, 4, 5]
    found = client.get_run(name)
    assert found.info.status == "FINISHED"
    assert found.data.params["field.149"] == "149"
    assert [item.path for item in client.list_artifacts(name)] == ["masks_1.png"]
    assert client.get_experiment(found.info.experiment_id).name == "sweep"
