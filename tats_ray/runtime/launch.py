"""The driver: places the rooms of a run, starts them, watches them, stops them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from tats_ray.config.schema import ClusterConfig, RunConfig
from tats_ray.core.errors import TatsError, UsageError
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import build_policy, token_grid
from tats_ray.runtime.buffer import RolloutBuffer
from tats_ray.runtime.mae_learner import Peers, train_loop
from tats_ray.runtime.policy_learner import PolicyLearnerActor
from tats_ray.runtime.run_log import RunLog
from tats_ray.runtime.weights import WeightStore

Event = Mapping[str, Any]
_POLL_S = 0.5


class RunFailedError(TatsError):
    """A run that ended with an error; the message is its first cause."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    is_finished: bool
    """False when it was asked to stop before its last epoch."""
    message: str
    step: int


@dataclass(frozen=True)
class Placement:
    """Who sits where, and with how many threads."""

    num_workers: int
    device: str
    policy_device: str
    threads: int
    learns_policy: bool


@runtime_checkable
class Clustered(Protocol):
    """A configuration of whatever kind that says which machines do the work."""

    @property
    def cluster(self) -> ClusterConfig: ...


@dataclass(frozen=True)
class Job:
    """What every rank runs."""

    loop: Callable[[dict[str, Any]], dict[str, Any]]
    """Entry point of a Ray Train worker; returns `status`, `message` and `step`."""
    settings: dict[str, Any]
    """Its argument."""
    log: Any
    """Handle of the run log."""


def plan_placement(config: RunConfig) -> Placement:
    """Decide where everything goes, and refuse what this machine alone shows to be impossible.

    Raises:
        UsageError: for a GPU that is not there, or more learners than CPUs, on a private cluster.
    """
    grid = token_grid(config.data, config.model)
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    return place(config, learns_policy=isinstance(policy, SamplerPolicy))


def place(config: Clustered, *, learns_policy: bool = False) -> Placement:
    """`plan_placement` for a run with these learners, with a policy learner or without."""
    cluster = config.cluster
    is_private = not (cluster.address or os.environ.get("RAY_ADDRESS"))
    gpus = torch.cuda.device_count()
    wants_gpus = cluster.num_workers * cluster.use_gpu + cluster.policy_gpus
    if is_private and wants_gpus > gpus:
        raise UsageError(
            f"cluster.use_gpu and cluster.policy_gpus ask for {wants_gpus:g} GPUs, this machine "
            f"has {gpus}; use --cluster.use_gpu false, fewer workers, or --cluster.address"
        )
    cores = _usable_cores()
    wants_cpus = cluster.num_workers * cluster.cpus_per_worker
    if is_private and wants_cpus > cores:
        raise UsageError(
            f"cluster.num_workers {cluster.num_workers} x cluster.cpus_per_worker "
            f"{cluster.cpus_per_worker:g} asks for {wants_cpus:g} CPUs, this machine has {cores}; "
            "lower one of them, or join a cluster with --cluster.address"
        )
    return Placement(
        num_workers=cluster.num_workers,
        device="cuda" if cluster.use_gpu else "cpu",
        policy_device="cuda" if cluster.policy_gpus else "cpu",
        threads=cluster.threads or max(cores // cluster.num_workers, 1),
        learns_policy=learns_policy,
    )


def run(
    config: RunConfig,
    folder: Path,
    placement: Placement,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train until the last epoch, a failure, or a request to stop (Ctrl-C or SIGTERM).

    Args:
        folder: the run's own; a checkpoint in it is continued.
        on_event: gets every event of the learners, in order, on this thread.
        on_tick: called about twice a second meanwhile.

    Raises:
        UsageError: when the cluster cannot hold the placement.
        RunFailedError: naming the first cause; the last checkpoint is intact.
    """

    def start() -> Job:
        peers = _start_peers(config, placement)
        settings = {
            "config": asdict(config),
            "run": str(folder.resolve()),
            "threads": placement.threads,
            "peers": peers,
        }
        return Job(train_loop, settings, peers.log)

    return run_job(config, folder, start, on_event=on_event, on_tick=on_tick)


def run_job(
    config: Clustered,
    folder: Path,
    start: Callable[[], Job],
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """`run` for any kind of learner; `start` is called once the cluster is there."""
    with _cluster(config):
        _check_resources(config)
        job = start()
        fit = _Fit(_trainer(config, folder, job))
        with _stop_requests(job.log, on_event):
            while not fit.done.wait(_POLL_S):
                _pass_on(job.log, on_event)
                on_tick()
        _pass_on(job.log, on_event)
        # What a learner called fatal is the cause; other ranks only saw it hang up.
        return fit.outcome(ray.get(job.log.fatal.remote(), timeout=60))


def start_log() -> Any:
    """The run log as an actor; it ends with the driver."""
    return ray.remote(RunLog).options(num_cpus=0, max_restarts=0).remote()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cluster_settings() -> None:
    """Settings of Ray's that must stand in the environment before it starts; yours win."""
    for name, value in {
        # Notice a lost or finished learner sooner than the default of 2 s.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1.0",
        # Watching for spot preemption costs a process, and belongs to clusters that have it.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # Ray no longer hides GPUs from actors that reserve none; every actor names its device.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def _cluster(config: Clustered) -> Iterator[None]:
    """Join a cluster, or start a private one that ends with the run."""
    cluster_settings()
    if ray.is_initialized():
        yield
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    # A private cluster may be told of fewer cores than the machine has, but not of none.
    private = {"num_cpus": _usable_cores()} if address == "local" else {}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level="ERROR",
        # Without a dashboard, Ray Train cannot clean up the placement groups of stopped trials.
        include_dashboard=True if address == "local" else None,
        **private,
    )
    try:
        yield
    finally:
        ray.shutdown()


def _check_resources(config: Clustered) -> None:
    have = ray.cluster_resources()
    cluster = config.cluster
    needs = {
        "CPU": cluster.num_workers * cluster.cpus_per_worker,
        "GPU": cluster.num_workers * cluster.use_gpu + cluster.policy_gpus,
    }
    for kind, amount in needs.items():
        if amount > have.get(kind, 0.0):
            raise UsageError(
                f"the run needs {amount:g} {kind}, the cluster has {have.get(kind, 0.0):g}; "
                "lower cluster.num_workers, cluster.cpus_per_worker or cluster.policy_gpus"
            )


def _start_peers(config: RunConfig, placement: Placement) -> Peers:
    """Start the side actors. This driver owns them: they outlive a restart of the learners.

    One that dies is started anew, empty. The call that met its death fails, so the learners are
    restarted too, and bring all of them back to the last checkpoint. Nothing is retried alone.
    """
    log = start_log()
    if not placement.learns_policy:
        return Peers(buffer=None, store=None, policy_learner=None, log=log)
    light = {"num_cpus": 0, "max_restarts": config.cluster.max_failures, "max_task_retries": 0}
    max_bytes = config.cluster.buffer_mb * 2**20
    buffer = ray.remote(RolloutBuffer).options(**light).remote(max_bytes=max_bytes)
    store = ray.remote(WeightStore).options(**light).remote(num_kept=config.loop.max_staleness + 1)
    # In the synchronous recipe it works while the MAE learners wait: it reserves no CPU.
    learner = (
        ray.remote(PolicyLearnerActor)
        .options(**light, num_gpus=config.cluster.policy_gpus)
        .remote(
            asdict(config),
            device=placement.policy_device,
            threads=placement.threads * placement.num_workers,
        )
    )
    return Peers(buffer=buffer, store=store, policy_learner=learner, log=log)


def _trainer(config: Clustered, folder: Path, job: Job) -> TorchTrainer:
    cluster = config.cluster
    return TorchTrainer(
        job.loop,
        train_loop_config=job.settings,
        torch_config=TorchConfig(timeout_s=round(cluster.timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=cluster.use_gpu,
            resources_per_worker={
                "CPU": cluster.cpus_per_worker,
                **({"GPU": 1} if cluster.use_gpu else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            # Ray's own state is of no use after the run: checkpoints are ours. A name of its own
            # keeps Ray from continuing what it finds.
            name=f"attempt-{time.time_ns()}",
            storage_path=str((folder / "ray").resolve()),
            failure_config=ray.train.FailureConfig(max_failures=cluster.max_failures),
        ),
    )


class _Fit:
    """`trainer.fit()` on a thread of its own, so that the driver can watch."""

    def __init__(self, trainer: TorchTrainer) -> None:
        self.done = threading.Event()
        self._trainer = trainer
        self._result: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="fit", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._trainer.fit()
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def outcome(self, fatal: str | None) -> Outcome:
        if fatal is not None:
            raise RunFailedError(fatal)
        if self._error is not None:
            raise RunFailedError(_first_cause(self._error)) from self._error
        told = self._result.return_value
        if told["status"] == "failed":
            raise RunFailedError(told["message"])
        return Outcome(told["status"] == "finished", told["message"], told["step"])


def _first_cause(error: BaseException) -> str:
    """The innermost message, not the wrapping of it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, first = min(failures.items())
        return f"rank {rank}: {_first_cause(first)}"
    cause = getattr(error, "cause", None) or error.__cause__
    if isinstance(cause, BaseException):
        return _first_cause(cause)
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


@contextmanager
def _stop_requests(log: Any, on_event: Callable[[Event], None]) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: ask the learners to save and stop. Second: give up at once."""
    asked = threading.Event()

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.request_stop.remote()
        text = "stopping: a checkpoint is saved at the next log step; again to give up at once"
        on_event({"kind": "note", "text": text, "time": time.time()})

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(log: Any, on_event: Callable[[Event], None]) -> None:
    for event in ray.get(log.drain.remote(), timeout=60):
        on_event(event)
