"""The Ray cluster of a run: one that is joined, or a private one that ends with the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from tats_ray.config.finetune_schema import Clustered
from tats_ray.runtime.resources.placement import usable_cores


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
