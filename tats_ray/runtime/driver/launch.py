"""The driver: places the rooms of a run, starts them, watches them, stops them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from tats_ray.config.schema import Clustered, RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.runtime.actors.calls import call_restarting
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import PolicyLearnerActor
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.rollout_worker import RolloutWorkers
from tats_ray.runtime.actors.run_log import RunLog
from tats_ray.runtime.actors.ticketed_buffer import TicketedBuffer
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.driver import home
from tats_ray.runtime.driver.causes import TellFailures
from tats_ray.runtime.driver.fit import Outcome, TrainerThread
from tats_ray.runtime.driver.reap import reap
from tats_ray.runtime.driver.scratch import clear
from tats_ray.runtime.driver.watch import Event, RunFailedError, Watch
from tats_ray.runtime.resources.capacity import ensure_room, on_this_node, threads_of, usable_cores
from tats_ray.runtime.resources.preflight import check_cluster, in_words, wanted_cpus, wanted_gpus
from tats_ray.runtime.workers.pretrain_worker import train_loop

__all__ = [
    "Event",
    "Job",
    "Outcome",
    "Placement",
    "RunFailedError",
    "place",
    "plan_placement",
    "run",
    "run_job",
    "start_log",
]

RAY_FOLDER = "ray"
RESIZE_CHECK_S = 60.0
"""Between two looks of an elastic run at whether the cluster has room for other learners."""


@dataclass(frozen=True)
class Placement:
    """Who sits where, and with how many threads."""

    num_workers: int
    device: str
    policy_device: str
    rollout_device: str
    threads: int
    """Per learner; 0 divides the cores of each node among the learners on it."""
    learns_policy: bool


@dataclass(frozen=True)
class Job:
    """What the driver starts and watches, of whatever kind the learners are."""

    loop: Callable[[dict[str, Any]], dict[str, Any]]
    """Entry point of a Ray Train worker; see `rank.attend`."""
    settings: dict[str, Any]
    """Its argument, to which a reference to the peers is added."""
    peers: Peers
    workers: RolloutWorkers | None = None


def plan_placement(config: RunConfig) -> Placement:
    """Decide where everything goes, and refuse what this machine alone shows to be impossible.

    Raises:
        UsageError: for a GPU that is not there, or more learners than CPUs, on a private cluster.
    """
    return place(config, learns_policy=find_sampler(config.sampler).learns)


def place(config: Clustered, *, learns_policy: bool = False) -> Placement:
    """`plan_placement` for any kind of learner, with a policy learner or without."""
    cluster = config.cluster
    is_private = not (cluster.address or os.environ.get("RAY_ADDRESS"))
    gpus = torch.cuda.device_count()
    wants_gpus = wanted_gpus(config)
    if is_private and wants_gpus > gpus:
        raise UsageError(
            f"cluster.use_gpu and cluster.policy_gpus ask for {wants_gpus:g} GPUs, this machine "
            f"has {gpus}; use --cluster.use_gpu false, fewer workers, or --cluster.address"
        )
    cores = usable_cores()
    wants_cpus = wanted_cpus(config)
    if is_private and wants_cpus > cores:
        raise UsageError(
            f"cluster.{'min' if cluster.is_elastic else 'num'}_workers {cluster.fewest_workers}"
            + (
                f" + cluster.rollout_workers {makers}"
                if (makers := config.num_rollout_workers)
                else ""
            )
            + f" x cluster.cpus_per_worker "
            f"{cluster.cpus_per_worker:g} asks for {wants_cpus:g} CPUs, this machine has {cores}; "
            "lower one of them, or join a cluster with --cluster.address"
        )
    return Placement(
        num_workers=cluster.num_workers,
        device="cuda" if cluster.use_gpu else "cpu",
        policy_device="cuda" if cluster.policy_gpus else "cpu",
        rollout_device="cuda" if cluster.rollout_gpus else "cpu",
        # The cores of this machine say nothing about a cluster's.
        threads=threads_of(cluster.threads, cluster.num_workers) if is_private else cluster.threads,
        learns_policy=learns_policy,
    )


def run(
    config: RunConfig,
    folder: Path,
    placement: Placement,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
    rollout_bytes: int = 0,
) -> Outcome:
    """Train until the last epoch, a failure, or a request to stop (Ctrl-C or SIGTERM).

    Args:
        folder: the run's own; a checkpoint in it is continued.
        on_event: gets every event of the learners, in order, on this thread.
        on_tick: called about twice a second meanwhile.
        rollout_bytes: that lie in an object store at most, copies counted; it must hold them.

    Raises:
        UsageError: when the cluster cannot hold the placement.
        RunFailedError: naming the first cause; the last checkpoint is intact.
    """

    def start(run_id: str) -> Job:
        peers = _start_peers(config, placement)
        workers = RolloutWorkers(
            config,
            device=placement.rollout_device,
            threads=placement.threads or max(int(config.cluster.cpus_per_worker), 1),
            buffer=peers.buffer,
            store=peers.store,
            log=peers.log,
        )
        settings = {
            "config": asdict(config),
            "run": str(folder.resolve()),
            "home": home.here(),
            "id": run_id,
            "threads": placement.threads,
        }
        return Job(train_loop, settings, peers, workers)

    return run_job(
        config, folder, start, on_event=on_event, on_tick=on_tick, rollout_bytes=rollout_bytes
    )


def run_job(
    config: Clustered,
    folder: Path,
    start: Callable[[str], Job],
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
    rollout_bytes: int = 0,
) -> Outcome:
    """`run` for any kind of learner.

    Args:
        start: id of the run -> its job; called once the cluster is there and has room.
    """
    run_id = uuid.uuid4().hex[:8]
    with joined_cluster(config), _scratch(folder, run_id):
        reap()  # of runs of this job whose process was killed
        ensure_room(config, lambda text: on_event(_note(text)))
        check_cluster(config, folder, rollout_bytes=rollout_bytes)
        job = start(run_id)
        log = job.peers.log
        with _ended(job.peers), job.workers or nullcontext() as workers:
            watch = Watch(log, config, on_event, lambda: in_words(config, _living_nodes()))
            with (
                TrainerThread(lambda: _trainer(config, folder, job), config, job.peers) as fit,
                _stop_requests(watch, on_event),
            ):
                while not fit.done.is_set():
                    if workers is not None:
                        workers.watch(on_event)
                    watch.poll()
                    on_tick()
            watch.poll()
            # What a learner called fatal is the cause; other ranks only saw it hang up.
            return fit.outcome(call_restarting(log.fatal, timeout_s=config.cluster.timeout_s))


@contextmanager
def _ended(peers: Peers) -> Iterator[None]:
    """End the side actors with the run: in a cluster that goes on, a handle that is kept somewhere
    would keep them, too.
    """
    try:
        yield
    finally:
        for actor in (peers.buffer, peers.store, peers.policy_learner, peers.log):
            if actor is not None:
                ray.kill(actor)


@contextmanager
def _scratch(folder: Path, run_id: str) -> Iterator[None]:
    """Remove Ray Train's own state, of no use after the run since checkpoints are ours."""
    shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
        clear(run_id)


def _living_nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def cluster_settings(*, is_elastic: bool = False) -> None:
    """Settings of Ray's that must stand in the environment before it starts; yours win."""
    for name, value in {
        # Notice a lost or finished learner sooner than the default of 2 s.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1.0",
        # Watching for spot preemption costs a process, and belongs to clusters that have it.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        # Ray Train counts on a lost node a while longer, and waits so long for learners on it.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20" if is_elastic else "60",
        # A rank that never comes to a barrier; Ray Train would wait for it for ever.
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # Ray no longer hides GPUs from actors that reserve none; every actor names its device.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def joined_cluster(config: Clustered, *, spare_cpus: int = 0) -> Iterator[None]:
    """Join a cluster, or start a private one that ends with the run.

    Args:
        spare_cpus: told to a private cluster beyond the cores it has.
    """
    cluster_settings(is_elastic=config.cluster.is_elastic)
    if ray.is_initialized():
        yield
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    # A private cluster may be told of fewer cores than the machine has, but not of none.
    private = {"num_cpus": usable_cores() + spare_cpus} if address == "local" else {}
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


def start_log(config: Clustered) -> Any:
    """The run log, beside the driver; it is started anew, empty, where it dies."""
    return ray.remote(RunLog).options(**_light(config), scheduling_strategy=on_this_node()).remote()


def _light(config: Clustered) -> dict[str, Any]:
    return {"num_cpus": 0, "max_restarts": config.cluster.max_failures, "max_task_retries": 0}


def _start_peers(config: RunConfig, placement: Placement) -> Peers:
    """Start the side actors. This driver owns them: they outlive a restart of the learners.

    One that dies is started anew, empty. The call that met its death fails, so the learners are
    restarted too, and bring all of them back to the last checkpoint. Nothing is retried alone.
    """
    light, log = _light(config), start_log(config)
    if not placement.learns_policy or config.cluster.policy_place == "learner":
        return Peers(buffer=None, store=None, policy_learner=None, log=log)
    max_bytes = config.cluster.buffer_mb * 2**20
    if config.num_rollout_workers:
        buffer = (
            ray.remote(TicketedBuffer)
            .options(**light)
            .remote(
                max_bytes=max_bytes,
                per_update=config.rollouts_per_update,
                max_staleness=config.loop.max_staleness,
            )
        )
    else:
        buffer = ray.remote(RolloutBuffer).options(**light).remote(max_bytes=max_bytes)
    store = ray.remote(WeightStore).options(**light).remote(num_kept=config.loop.max_staleness + 1)
    # In the synchronous recipe it works while the MAE learners wait: it reserves no CPU.
    # Its GPU lies outside the resources of a sweep's trial, which are those of a light driver.
    where = {"scheduling_strategy": "DEFAULT"} if config.cluster.policy_gpus else {}
    learner = (
        ray.remote(PolicyLearnerActor)
        .options(**light, **where, num_gpus=config.cluster.policy_gpus)
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
        # A reference: Ray Train's controller unpickles these settings, and a handle of an actor
        # imports the actor's module there, torch and timm with it, before any learner starts.
        train_loop_config={**job.settings, "peers": ray.put(job.peers)},
        torch_config=TorchConfig(timeout_s=round(cluster.timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(
                (cluster.min_workers, cluster.num_workers)
                if cluster.is_elastic
                else cluster.num_workers
            ),
            elastic_resize_monitor_interval_s=RESIZE_CHECK_S,
            use_gpu=cluster.use_gpu,
            resources_per_worker={
                "CPU": cluster.cpus_per_worker,
                **({"GPU": 1} if cluster.use_gpu else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            # A name of its own keeps Ray from continuing what it finds.
            name=f"attempt-{time.time_ns()}",
            storage_path=str((folder / RAY_FOLDER).resolve()),
            failure_config=ray.train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=[TellFailures(job.peers.log, job.peers.rooms())],
        ),
    )


@contextmanager
def _stop_requests(watch: Watch, on_event: Callable[[Event], None]) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: ask the learners to save and stop. Second: give up at once."""
    asked = threading.Event()

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        watch.wants_stop = True  # the next poll passes it on
        text = "stopping: a checkpoint is saved at the next log step; again to give up at once"
        on_event(_note(text))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(text: str) -> Event:
    return {"kind": "note", "text": text, "time": time.time()}
