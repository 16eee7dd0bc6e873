"""The driver: places the rooms of a run, starts them, watches them, stops them."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig
from tats_ray.runtime.actors.calls import call_restarting
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.driver import home, reap
from tats_ray.runtime.driver.causes import ROOMS, TellFailures
from tats_ray.runtime.driver.dashboard import DashboardGauges
from tats_ray.runtime.driver.fit import Outcome, TrainerThread
from tats_ray.runtime.driver.ray_cluster import joined_cluster
from tats_ray.runtime.driver.rollout_workers import RolloutWorkers
from tats_ray.runtime.driver.scratch import clear
from tats_ray.runtime.driver.side_actors import start_peers
from tats_ray.runtime.driver.watch import Event, RunFailedError, Watch
from tats_ray.runtime.resources.capacity import ensure_room
from tats_ray.runtime.resources.placement import Placement
from tats_ray.runtime.resources.preflight import check_cluster, in_words
from tats_ray.runtime.resources.request import ResourceRequest, listed, summed
from tats_ray.runtime.workers.finetune_worker import finetune_loop
from tats_ray.runtime.workers.pretrain_worker import train_loop

__all__ = ["Event", "Outcome", "RunFailedError", "run"]

RAY_FOLDER = "ray"
RESIZE_CHECK_S = 60.0
"""Between two looks of an elastic run at whether the cluster has room for other learners."""


def run(
    config: Clustered,
    folder: Path,
    placement: Placement,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
    rollout_bytes: int = 0,
) -> Outcome:
    """Pre-train or fine-tune until the last epoch, a failure, or a request to stop (Ctrl-C or
    SIGTERM).

    Args:
        config: of either kind of run, with nothing in it left to a checkpoint.
        folder: the run's own; a checkpoint in it is continued.
        on_event: gets every event of the learners, in order, on this thread.
        on_tick: called about twice a second meanwhile.
        rollout_bytes: that lie in an object store at most, copies counted; it must hold them.

    Raises:
        UsageError: when the cluster cannot hold the placement.
        RunFailedError: naming the first cause; the last checkpoint is intact.
    """
    run_id, request = uuid.uuid4().hex[:8], placement.request
    with joined_cluster(config) as logs, _scratch(folder, run_id):
        if logs:
            on_event({"kind": "logs", "path": logs, "time": time.time()})
        reap.reap()  # of runs of this job whose process was killed
        ensure_room(request, config.cluster.nodes_timeout_s, lambda text: on_event(_note(text)))
        check_cluster(request, folder, rollout_bytes=rollout_bytes)
        peers = start_peers(config, placement)
        job = {
            "config": asdict(config),
            "run": str(folder.resolve()),
            "home": home.here(),
            "id": run_id,
            "threads": placement.threads,
        }
        with _ended(peers), RolloutWorkers(config, placement, peers) as workers:
            shown = DashboardGauges(config.name, on_event)
            watch = Watch(peers.log, config, shown, lambda: _standing(request))
            with (
                TrainerThread(
                    lambda: _trainer(config, folder, request, job, peers), config, peers
                ) as fit,
                _stop_requests(watch, on_event),
            ):
                while not fit.done.is_set():
                    workers.watch(on_event)
                    watch.poll()
                    on_tick()
            watch.poll()
            # What a learner called fatal is the cause; other ranks only saw it hang up.
            return fit.outcome(call_restarting(peers.log.fatal, timeout_s=config.cluster.timeout_s))


@contextmanager
def _ended(peers: Peers) -> Iterator[None]:
    """End the side actors with the run: in a cluster that goes on, a handle that is kept somewhere
    would keep them, too.
    """
    try:
        yield
    finally:
        others = (peers.buffer, peers.store, peers.policy_learner, peers.log)
        for actor in (*peers.decoders, *others):
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


def _standing(request: ResourceRequest) -> str:
    """What the run needs, the cluster has and others hold, and how far its processes have come."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    free = listed(summed([ray.available_resources()]))
    return f"{in_words(request, nodes)}, of which {free} is free; {reap.in_words(ROOMS)}"


def _trainer(
    config: Clustered, folder: Path, request: ResourceRequest, job: dict[str, Any], peers: Peers
) -> TorchTrainer:
    cluster = config.cluster
    return TorchTrainer(
        train_loop if isinstance(config, RunConfig) else finetune_loop,
        # A reference: Ray Train's controller unpickles these settings, and a handle of an actor
        # imports the actor's module there, torch and timm with it, before any learner starts.
        train_loop_config={**job, "peers": ray.put(peers)},
        torch_config=TorchConfig(timeout_s=round(cluster.timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(
                (cluster.min_workers, cluster.num_workers)
                if cluster.is_elastic
                else cluster.num_workers
            ),
            elastic_resize_monitor_interval_s=RESIZE_CHECK_S,
            use_gpu=request.learners.gpu > 0,
            resources_per_worker={"CPU": 0.0, **request.learners.each},
        ),
        run_config=ray.train.RunConfig(
            # A name of its own keeps Ray from continuing what it finds.
            name=f"attempt-{time.time_ns()}",
            storage_path=str((folder / RAY_FOLDER).resolve()),
            failure_config=ray.train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=[TellFailures(peers.log, peers.rooms())],
        ),
    )


@contextmanager
def _stop_requests(watch: Watch, on_event: Callable[[Event], None]) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or SIGHUP: ask the learners to save and stop. Second: give up at once.

    SIGHUP is what a closed terminal or a lost SSH connection sends; under nohup it is ignored.
    """
    asked = threading.Event()

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        watch.wants_stop = True  # the next poll passes it on
        text = "stopping: a checkpoint is saved at the next log step; repeat to stop at once"
        on_event(_note(text))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asking = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asking.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(text: str) -> Event:
    return {"kind": "note", "text": text, "time": time.time()}
