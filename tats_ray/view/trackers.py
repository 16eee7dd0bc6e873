"""A run's metrics for Weights & Biases and MLflow, from threads that no run waits for."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from tats_ray.core.errors import UsageError
from tats_ray.core.storage import replace_text
from tats_ray.core.words import counted
from tats_ray.view.progress import Event

Remote = Literal["wandb", "mlflow"]
Ending = Literal["finished", "stopped", "failed"]
_ROOM = 1000  # records that may wait for a slow tracker
_PACKAGES: Mapping[Remote, str] = {"wandb": "wandb", "mlflow": "mlflow-skinny"}
_IDS_FILE = "trackers.json"


class TrackedRun(NamedTuple):
    """What a tracker is to know about a run."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    """Field -> value."""
    group: str = ""
    """The sweep that it belongs to."""


@runtime_checkable
class Sink(Protocol):
    """One tracker's run, open."""

    def log(self, metrics: Mapping[str, float], step: int, time_s: float) -> None: ...

    def attach(self, path: Path) -> None:
        """Keep a picture or a page with the run."""

    def close(self, how: Ending) -> None: ...


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        UsageError: naming the package.
    """
    for name, package in _PACKAGES.items():
        if name in names and importlib.util.find_spec(name) is None:
            raise UsageError(
                f"log.trackers names {name}, which is not installed; pip install {package}, "
                "or leave it out"
            )


class Trackers:
    """Sends records to trackers, each from a thread of its own.

    A tracker that fails is given up with a note, and one that is slow loses records. Neither holds
    the run up, and `metrics.jsonl` has them all.

    Args:
        names: those of `log.trackers`; TensorBoard is not among the remote ones.
        patience_s: for a tracker to take what is left when the run ends.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: TrackedRun,
        *,
        on_note: Callable[[str], None],
        patience_s: float = 10.0,
    ) -> None:
        self._on_note = on_note
        self.ending: Ending = "finished"
        """What the trackers are told at the end."""
        self._notes: deque[str] = deque()
        """Of the threads; the view gets them from the thread that it knows."""
        self._senders = [
            _Sender(name, run, self._notes.append, patience_s) for name in _OPEN if name in names
        ]

    def on_event(self, event: Event) -> None:
        self._tell()
        if event["kind"] == "metrics":
            values = {name: float(value) for name, value in event["metrics"].items()}
            for sender in self._senders:
                sender.put(lambda sink: sink.log(values, event["step"], event["time"]))

    def attach(self, paths: Sequence[Path]) -> None:
        for sender in self._senders:
            for path in paths:
                sender.put(partial(_attach, path=path))

    def close(self) -> None:
        for sender in self._senders:
            sender.put(partial(_close, how=self.ending))
            sender.end()
        for sender in self._senders:
            sender.wait()
        self._tell()

    def _tell(self) -> None:
        while self._notes:
            self._on_note(self._notes.popleft())

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self.ending = "failed"
        self.close()


def _attach(sink: Sink, *, path: Path) -> None:
    sink.attach(path)


def _close(sink: Sink, *, how: Ending) -> None:
    sink.close(how)


class _Sender:
    """A queue, and the thread that empties it into one tracker."""

    def __init__(
        self, name: Remote, run: TrackedRun, on_note: Callable[[str], None], patience_s: float
    ) -> None:
        self._name, self._run, self._on_note = name, run, on_note
        self._patience_s = patience_s
        self._queue: queue.Queue[Callable[[Sink], None] | None] = queue.Queue(_ROOM)
        self._num_lost = 0
        self._is_dead = False
        # A daemon: a tracker that never answers does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, task: Callable[[Sink], None]) -> None:
        if self._is_dead:
            return
        try:
            self._queue.put_nowait(task)
        except queue.Full:
            self._num_lost += 1

    def end(self) -> None:
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._is_dead = True  # hopelessly late: it is not waited for

    def wait(self) -> None:
        started = time.monotonic()
        self._thread.join(0.0 if self._is_dead else self._patience_s)
        if self._thread.is_alive():
            waited = f" within {time.monotonic() - started:.0f} s" if not self._is_dead else ""
            self._on_note(f"{self._name} could not take all records{waited}{_ALL_HERE}")
        elif self._num_lost:
            lost = counted(self._num_lost, "record")
            self._on_note(f"{self._name} was too slow for {lost}{_ALL_HERE}")

    def _work(self) -> None:
        try:
            sink = _OPEN[self._name](self._run, self._on_note)
            while (task := self._queue.get()) is not None:
                task(sink)
        except Exception as error:  # whatever a tracker raises is not worth a run
            self._is_dead = True
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._on_note(f"{self._name} failed and gets no more records: {reason}{_ALL_HERE}")


_ALL_HERE = "; metrics.jsonl has them all"
_ids_lock = threading.Lock()


def _id_of(run: TrackedRun, name: Remote, make: Callable[[], str]) -> str:
    """A run's id with a tracker: made at its first start, and kept for resumptions."""
    path = run.folder / _IDS_FILE
    with _ids_lock:  # trackers start at the same time
        try:
            ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            ids = {}
        if name not in ids:
            ids[name] = make()
            replace_text(path, json.dumps(ids) + "\n")
        return ids[name]


class _Wandb:
    def __init__(self, run: TrackedRun, on_note: Callable[[str], None]) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or (
            "online" if wandb.login(prompt=False) else "offline"
        )
        if mode == "offline":
            on_note(f"wandb keeps this run in {run.folder / 'wandb'}; `wandb sync` sends it")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tats_ray"),
            id=_id_of(run, "wandb", lambda: uuid.uuid4().hex[:12]),
            resume="allow",
            name=run.name,
            group=run.group or None,
            config=dict(run.config),
            dir=str(run.folder),
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),
        )
        # Steps that are done again after a failure may be told twice.
        self._run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int, time_s: float) -> None:
        self._run.log({**metrics, "step": step, "_timestamp": time_s})

    def attach(self, path: Path) -> None:
        import wandb

        kind = wandb.Image if path.suffix == ".png" else wandb.Html
        self._run.log({path.stem: kind(str(path))})

    def close(self, how: Ending) -> None:
        self._run.finish(exit_code={"finished": 0, "stopped": 130, "failed": 1}[how])


class _Mlflow:
    def __init__(self, run: TrackedRun, on_note: Callable[[str], None]) -> None:
        from mlflow import MlflowClient

        if "MLFLOW_TRACKING_URI" not in os.environ:
            place = run.folder.absolute().parent / "mlruns"
            on_note(f"mlflow keeps this run in {place}; MLFLOW_TRACKING_URI sends it elsewhere")
            # Its other store needs a database library, which the small package does without.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self._client = MlflowClient(place.as_uri())
        else:
            self._client = MlflowClient()
        self._id = _id_of(run, "mlflow", lambda: self._create(run))
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.group or "tats_ray"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        made: str = self._client.create_run(experiment, run_name=run.name).info.run_id
        fields = [Param(field, str(value)) for field, value in run.config.items()]
        for first in range(0, len(fields), 100):  # its limit
            self._client.log_batch(made, params=fields[first : first + 100])
        return made

    def log(self, metrics: Mapping[str, float], step: int, time_s: float) -> None:
        from mlflow.entities import Metric

        values = [Metric(k, v, int(1000 * time_s), step) for k, v in metrics.items()]
        self._client.log_batch(self._id, metrics=values)

    def attach(self, path: Path) -> None:
        self._client.log_artifact(self._id, str(path))

    def close(self, how: Ending) -> None:
        status = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[how]
        self._client.set_terminated(self._id, status)


_OPEN: dict[Remote, Callable[[TrackedRun, Callable[[str], None]], Sink]] = {
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
