"""One trial of a sweep: a run as `tats pretrain` makes it, and its measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.folders import candidates
from tats_ray.config.differences import flat
from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import TatsError
from tats_ray.core.folder_lock import only_run_in
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runs.run_folder import run_folder
from tats_ray.runs.run_record import record_end, record_start
from tats_ray.runs.warm_start import first_state
from tats_ray.runtime.driver import launch
from tats_ray.runtime.driver.tuner import Job, Report, elsewhere
from tats_ray.runtime.resources.request import ResourceRequest
from tats_ray.sweeps.sweep_folder import Record, Status, write_record
from tats_ray.sweeps.trial_measures import (
    error_at,
    has_labels,
    is_own,
    knn_accuracy,
    train_error,
    val_error,
)
from tats_ray.view.lines import note_line
from tats_ray.view.trackers import TrackedRun, Trackers
from tats_ray.view.tracking import RunFiles

_LOCK_WAIT_S = 60.0
_MEASURE_TIMEOUT_S = 6 * 3600.0


def run_trial(job: Job, report: Report) -> None:
    """Train, measure, and leave a record; the run's actors are owned here and gone with it.

    Args:
        job: `name`, `values`, `seed`, `config` (nested), `metric`, `val_ratio`, `knn_k`, and
            `is_followed`: whether a scheduler wants to hear of every epoch.
        report: is told then, and at the end.

    Raises:
        Exception: whatever went wrong, after it was written down as the reason.
    """
    config = parse_config(job["config"])
    folder = run_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    # The driver before this one may have been killed a moment ago, and this trial with it.
    with only_run_in(folder, wait_s=_LOCK_WAIT_S):
        trial = _Trial(job, config, folder, report)
        try:
            trial.train()
            trial.measure()
        except Exception as error:
            trial.write("failed", reason(error))
            record_end(folder, "failed", reason(error))
            raise
        trial.write("finished")
        record_end(folder, "finished")
        trial.tell()


def reason(error: BaseException) -> str:
    """One line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return lines[-1] if isinstance(error, TatsError) else f"{type(error).__name__}: {lines[-1]}"


class _Trial:
    """Follows a run's events; turns them into files, reports and the record."""

    def __init__(self, job: Job, config: RunConfig, folder: Path, report: Report) -> None:
        self.job, self.config, self.folder, self.report = job, config, folder, report
        self.measures: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.epoch = 0
        self.asked = time.time()
        self.began: float | None = None

    def train(self) -> None:
        self.write("running")
        plan = make_plan(self.config)
        record_start(self.folder, self.config, plan.lists)
        if self.config.init and not candidates(self.folder / "checkpoints"):
            first_state(self.config).save(self.folder)
        wanted = self.config.log.trackers
        files = RunFiles(self.folder, has_tensorboard="tensorboard" in wanted)
        sweep, fields = self.folder.parents[1].name, flat(asdict(self.config))
        tracked = TrackedRun(self.folder, self.job["name"], fields, group=sweep)
        trackers = Trackers(wanted, tracked, on_note=lambda text: print(note_line(text)))

        def on_event(event: Mapping[str, Any]) -> None:
            files.on_event(event)
            trackers.on_event(event)
            self._follow(event)

        with trackers, files:
            outcome = launch.run(
                self.config,
                self.folder,
                plan.placement,
                on_event=on_event,
                rollout_bytes=plan.rollout_bytes,
            )
            trackers.ending = "finished" if outcome.is_finished else "stopped"
        if not outcome.is_finished:
            raise TatsError(f"{outcome.message}, before its last epoch")
        self.epoch = self.config.loop.epochs
        self.measures["train_error"] = train_error(self.folder)
        error = val_error(self.folder)
        if error is not None:
            self.measures["val_error"] = error

    def measure(self) -> None:
        """What is measured afterwards: on a GPU of its own where learners have one."""
        data, ratio = self.config.data, self.job["val_ratio"]
        if not data.val_list:
            return
        if not is_own(self.config, ratio):
            self.measures["val_error"] = self._apart(error_at, str(self.folder), ratio)
        if not has_labels(data):
            return
        started = time.time()
        asked = (str(self.folder), data, self.job["knn_k"])
        self.measures["knn"] = self._apart(knn_accuracy, *asked)
        self.seconds["knn"] = time.time() - started

    def _apart(self, function: Callable[..., float], *args: Any) -> float:
        """Call it with the device as its last argument."""
        own = ResourceRequest.of(self.config).learners
        if not own.gpu:
            return function(*args, own.device)
        limit = {"num_cpus": own.cpu, "num_gpus": own.gpu, "timeout_s": _MEASURE_TIMEOUT_S}
        found: float = elsewhere(function, *args, own.device, **limit)
        return found

    def tell(self) -> None:
        """Tell the scheduler, which may end the trial here."""
        self.report({**self.measures, "epoch": self.epoch, "trial": self.job["name"]})

    def write(self, status: Status, why: str = "") -> None:
        self.seconds["total"] = time.time() - self.asked
        record = Record(
            name=self.job["name"],
            values=dict(self.job["values"]),
            seed=self.job["seed"],
            status=status,
            reason=why,
            measures=dict(self.measures),
            epochs=self.epoch,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
        )
        write_record(self.folder, record)

    def _follow(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "start" and self.began is None:
            self.began = event["time"]
            self.seconds["start"] = event["time"] - self.asked
        if event["kind"] != "metrics":
            return
        self.seconds["train"] = event["time"] - (self.began or self.asked)
        for name, measure in (("mae/loss", "train_error"), ("eval/error", "val_error")):
            if name in event["metrics"]:
                self.measures[measure] = event["metrics"][name]
        if int(event["epoch"]) > self.epoch:
            self.epoch = int(event["epoch"])
            self.write("running")
            # Of the last epoch, the scheduler hears when all is measured: it ends the trial there.
            is_last = self.epoch >= self.config.loop.epochs
            if self.job["is_followed"] and not is_last and self.job["metric"] in self.measures:
                self.tell()
