"""Trials of a sweep side by side. Ray Tune enters the project here.

A trial is a light function (0.01 CPU) that starts a whole run with actors of its own. It must not
reserve more: drivers that hold the CPUs their learners wait for would wait for ever. Tune decides
who runs, who is stopped early and what is tried next; results, checkpoints and resumption are ours
and lie in the runs' folders.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.core.errors import UsageError
from tats_ray.runtime.driver import home
from tats_ray.runtime.driver.optuna_search import Proposals, make_searcher
from tats_ray.runtime.driver.reap import controllers, reap
from tats_ray.runtime.resources.packing import DRIVER_CPU

Report = Callable[[dict[str, Any]], None]
"""Hands measures to the scheduler, which may end the trial there; `epoch` is among them."""
Job = Mapping[str, Any]
"""What a trial runs: a plain mapping with its `name`."""
_NODE_TIMEOUT_S = 120.0
_REAP_EVERY_S = 5.0
_REAP_LIMIT_S = 30.0


@runtime_checkable
class Listener(Protocol):
    """Receives Tune's events, on the driver."""

    def started(self, name: str) -> None: ...
    def ended(self, name: str, error: str | None) -> None: ...


@dataclass(frozen=True)
class Asha:
    """Early stopping: at every rung, one trial in `reduction` continues."""

    max_epochs: int
    grace_epochs: int
    reduction: int


@dataclass(frozen=True)
class Schedule:
    """How trials are run."""

    at_once: int
    metric: str
    is_best_lowest: bool
    asha: Asha | None = None
    proposals: Proposals | None = None

    def searcher(self) -> Any:
        return self.proposals and make_searcher(
            self.proposals, self.metric, is_lowest=self.is_best_lowest
        )


def is_joined() -> bool:
    """Whether this process already belongs to a cluster."""
    return ray.is_initialized()


def nodes() -> list[Mapping[str, float]]:
    """CPUs and GPUs of the machines of the cluster that was joined."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def run_trials(
    trial: Callable[[Job, Report], None],
    jobs: Sequence[Job],
    schedule: Schedule,
    listener: Listener,
    *,
    folder: Path,
) -> bool:
    """Run all jobs, or those that a search proposes.

    Args:
        trial: runs one job; with `schedule.proposals`, the job is `{"values": point}`. What it
            raises marks its own trial as failed; the others go on.
        folder: for Tune's own state, which nothing depends on afterwards.

    Returns:
        Whether all were run: False after Ctrl-C.
    """
    _quieten()
    names = [str(job["name"]) for job in jobs]
    driver = partial(
        _drive,
        trial=trial,
        jobs=None if schedule.proposals else dict(zip(names, jobs, strict=True)),
        started_in=home.here(),
    )
    watch = _Watch(listener, by_values=schedule.proposals is not None)
    tuner = tune.Tuner(
        tune.with_resources(driver, {"cpu": DRIVER_CPU}),
        param_space=_param_space(schedule, names),
        tune_config=tune.TuneConfig(
            metric=schedule.metric,
            mode="min" if schedule.is_best_lowest else "max",
            max_concurrent_trials=schedule.at_once,
            scheduler=_scheduler(schedule),
            search_alg=schedule.searcher(),
            num_samples=schedule.proposals.num_samples if schedule.proposals else 1,
            # A trial that ended by itself leaves a process whose imports the next one needs. One
            # that a scheduler stops ends with its process, and its actors with it.
            reuse_actors=schedule.asha is None,
            trial_name_creator=watch.name_of,
            trial_dirname_creator=lambda t: str(t.trial_id),
        ),
        run_config=tune.RunConfig(
            name=f"session-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder.resolve()),
            verbose=0,
            callbacks=[watch],
        ),
    )
    before = controllers()
    try:
        tuner.fit()
    finally:
        _reap_after(before)
    expected = schedule.proposals.num_samples if schedule.proposals else len(jobs)
    return watch.num_ended == expected


def _quieten() -> None:
    # Trials log for themselves: metrics.jsonl and TensorBoard, rewound when they are resumed.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints a box whatever its verbosity
    # A trial that fails is reported by us, in one line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _reap_after(before: set[bytes]) -> None:
    """`reap`, once the controllers of the last trials are dead: Ray takes a moment to end those of
    a process that was killed.
    """
    deadline = time.monotonic() + _REAP_LIMIT_S
    while controllers() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    reap()


def _drive(
    config: dict[str, Any],
    *,
    trial: Callable[[Job, Report], None],
    jobs: Mapping[str, Job] | None,
    started_in: str,
) -> None:
    """What Tune calls in a trial's process; without jobs, to run a proposed point."""
    home.go_to(started_in)  # Tune starts trials in folders of its own
    trial({"values": dict(config["values"])} if jobs is None else jobs[config["name"]], tune.report)


def elsewhere(
    function: Callable[..., Any], *args: Any, num_cpus: float, num_gpus: float, timeout_s: float
) -> Any:
    """Call a function in a process with resources of its own, outside those of the trial.

    The process ends with the call, so that the memory of its GPU is free before anybody else gets
    it.
    """
    own = {"num_cpus": num_cpus, "num_gpus": num_gpus, "scheduling_strategy": "DEFAULT"}
    remote = ray.remote(max_calls=1, **own)(home.call_from)
    return ray.get(remote.remote(home.here(), function, *args), timeout=timeout_s)


def check_shared(folder: Path) -> None:
    """Every node can write into the folder, and sees what others wrote.

    Raises:
        UsageError: naming the node that cannot.
    """
    marker = folder / f".shared-{uuid.uuid4().hex}"
    marker.write_text("")
    try:
        probe = ray.remote(_probe)
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                call = probe.options(num_cpus=0, scheduling_strategy=there)
                asked[node["NodeManagerAddress"]] = call.remote(str(marker.resolve()))
        for address, reply in asked.items():
            problem = ray.get(reply, timeout=_NODE_TIMEOUT_S)
            if problem:
                raise UsageError(
                    f"node {address} {problem}; use --checkpoint.folder with a folder that all "
                    "nodes share and can write"
                )
    finally:
        for left in folder.glob(f"{marker.name}*"):
            left.unlink(missing_ok=True)


def _probe(marker: str) -> str:
    """What is wrong with the marker's folder as this machine sees it; empty if nothing is."""
    if not os.path.exists(marker):  # noqa: PTH110 - runs where the project's imports may be slow
        return f"does not see {marker}"
    try:
        with open(f"{marker}-{os.getpid()}", "w"):  # noqa: PTH123
            return ""
    except OSError as error:
        return f"cannot write beside {marker} ({error.strerror})"


class _Watch(tune.Callback):
    """Forwards the outcome of trials, under their own names."""

    def __init__(self, listener: Listener, *, by_values: bool) -> None:
        self._listener = listener
        self._by_values = by_values
        self.num_ended = 0
        self._reaped = time.monotonic()

    def on_step_end(self, iteration: Any, trials: Any, **info: Any) -> None:
        """A trial whose process is stopped, or dies, has nobody else to give back what the next one
        waits for.
        """
        if time.monotonic() - self._reaped > _REAP_EVERY_S:
            reap()
            self._reaped = time.monotonic()

    def name_of(self, trial: Any) -> str:
        return str(trial.trial_id if self._by_values else trial.config["name"])

    def on_trial_start(self, iteration: Any, trials: Any, trial: Any, **info: Any) -> None:
        self._listener.started(self.name_of(trial))

    def on_trial_complete(self, iteration: Any, trials: Any, trial: Any, **info: Any) -> None:
        self.num_ended += 1
        self._listener.ended(self._told(trial), None)

    def on_trial_error(self, iteration: Any, trials: Any, trial: Any, **info: Any) -> None:
        self.num_ended += 1
        text = str(trial.get_error() or "").strip().splitlines()
        self._listener.ended(self._told(trial), text[-1] if text else "its process died")

    def _told(self, trial: Any) -> str:
        """A proposed trial has the name that it gave itself."""
        told = (trial.last_result or {}).get("trial")
        return str(told) if self._by_values and told else self.name_of(trial)


def _param_space(schedule: Schedule, names: list[str]) -> dict[str, Any]:
    if schedule.proposals is None:
        return {"name": tune.grid_search(names)}
    return {}


def _scheduler(schedule: Schedule) -> Any:
    if schedule.asha is None:
        return None
    return ASHAScheduler(
        time_attr="epoch",
        max_t=schedule.asha.max_epochs,
        grace_period=schedule.asha.grace_epochs,
        reduction_factor=schedule.asha.reduction,
    )
