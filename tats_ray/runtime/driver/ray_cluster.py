"""The Ray cluster of a run: one that is joined, or a private one that ends with the run."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray

from tats_ray.config.finetune_schema import Clustered
from tats_ray.core.errors import UsageError
from tats_ray.runtime.driver.ray_watchdog import unmark, watched
from tats_ray.runtime.resources.placement import usable_cores

_ANSWER_S = 10.0
"""How long the machine of an address may take to answer."""


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
def joined_cluster(config: Clustered, *, spare_cpus: int = 0) -> Iterator[str]:
    """Join a cluster, or start a private one that ends with the run, or with this process.

    Yields the folder of Ray's logs; empty in a cluster that was joined before.

    Args:
        spare_cpus: told to a private cluster beyond the cores it has.

    Raises:
        UsageError: when no cluster answers at the address, or Ray does not start here.
    """
    cluster_settings(is_elastic=config.cluster.is_elastic)
    if ray.is_initialized():
        yield ""
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    # A private cluster may be told of fewer cores than the machine has, but not of none.
    private = {"num_cpus": usable_cores() + spare_cpus} if address == "local" else {}
    if address not in ("local", "auto"):
        _check_answer(address)
    with watched() if private else nullcontext():
        try:
            joined = ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                # Without a dashboard, Ray Train cannot clean up placement groups of stopped trials.
                include_dashboard=True if private else None,
                **private,
            )
        except Exception as error:  # Ray raises bare ones, too
            raise UsageError(_why_not(address, error)) from error
        unmark()
        try:
            session = getattr(joined, "address_info", {}).get("session_dir")
            yield str(Path(session) / "logs") if session else ""
        finally:
            ray.shutdown()


def _check_answer(address: str) -> None:
    """Ray itself would wait for minutes, end in C++, and not listen to Ctrl-C meanwhile."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise UsageError(_why_not(address, error)) from error


def _why_not(address: str, error: Exception) -> str:
    """One line about a Ray that was not reached or did not start."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if address == "local":
        return f"Ray did not start on this machine ({reason}); `tats doctor` checks what it needs"
    return (
        f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head`, "
        "correct --cluster.address or RAY_ADDRESS, or leave out both for a private cluster"
    )
