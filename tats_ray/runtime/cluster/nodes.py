"""Every node of a cluster, looked at from the inside."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.data.decode import read_frames
from tats_ray.data.encode import write_video
from tats_ray.runtime.driver.ray_cluster import cluster_settings
from tats_ray.runtime.resources.placement import usable_cores

LOOK_S = 180.0
"""Longest that a node may take to look at itself, its first process included."""


@dataclass(frozen=True)
class NodeReport:
    """What one node says of itself."""

    host: str
    node_id: str
    versions: dict[str, str]
    cores: int
    gpus: tuple[str, ...]
    driver: str
    storage: str
    """ok, -, or what went wrong."""
    clips_per_s: float
    """16 of 64 frames of 320 x 240 H.264, one process."""
    error: str = ""


def join_cluster(address: str = "") -> None:
    """Become a driver of the cluster at hand; `shutdown` ends that."""
    cluster_settings()
    ray.init(
        address=address or os.environ.get("RAY_ADDRESS") or "auto",
        logging_level="ERROR",
        log_to_driver=False,
    )


def leave_cluster() -> None:
    ray.shutdown()


def look_at_nodes(storage: str) -> list[NodeReport]:
    """Ask every node that is alive, the driver's own first.

    Args:
        storage: folder that all nodes should share; empty leaves that out.
    """
    own = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: (node["NodeID"] != own, node["NodeManagerHostname"]))
    mark = f".tats-{uuid.uuid4().hex[:8]}"
    asked = [on_node(node["NodeID"], look_at_this_node).remote(storage, mark) for node in alive]
    ray.wait(asked, num_returns=len(asked), timeout=LOOK_S)
    reports = []
    for node, reply in zip(alive, asked, strict=True):
        try:
            told = ray.get(reply, timeout=1)
        except Exception as error:  # its own verdict: one bad node must not hide the others
            told = NodeReport(
                host=node["NodeManagerHostname"],
                node_id=node["NodeID"],
                versions={},
                cores=0,
                gpus=(),
                driver="",
                storage="-",
                clips_per_s=0.0,
                error=f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}",
            )
        reports.append(told)
    return _check_shared(reports, storage, mark)


def look_at_this_node(storage: str, mark: str) -> NodeReport:
    node_id = ray.get_runtime_context().get_node_id()
    return NodeReport(
        host=socket.gethostname(),
        node_id=node_id,
        versions={"python": platform.python_version(), **_versions("ray", "torch", "tats-ray")},
        cores=usable_cores(),
        gpus=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        driver=gpu_driver(),
        storage=try_storage(storage, f"{mark}-{node_id}"),
        clips_per_s=decode_speed(),
    )


def gpu_driver() -> str:
    """Version of NVIDIA's driver; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else ""


def try_storage(folder: str, name: str) -> str:
    """Write a file and read it back: ok, - without a folder, or what went wrong."""
    if not folder:
        return "-"
    path = Path(folder) / name
    try:
        path.write_text(name)
        return "ok" if path.read_text() == name else "reads back different bytes"
    except OSError as error:
        return f"{error.strerror}: {path}"


def decode_speed(seconds: float = 1.0) -> float:
    """Clips a second that one process decodes here."""
    frames = np.random.default_rng(0).integers(0, 255, (64, 30, 40, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames.repeat(8, axis=1).repeat(8, axis=2))
        count, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            read_frames(str(path), lambda n: range(0, 32, 2))
            count += 1
        return count / (time.perf_counter() - start)


def _check_shared(reports: list[NodeReport], storage: str, mark: str) -> list[NodeReport]:
    """A folder that this node does not see the others' files in is not the same folder."""
    if not storage:
        return reports
    checked = []
    for told in reports:
        path = Path(storage) / f"{mark}-{told.node_id}"
        is_seen = path.is_file()
        path.unlink(missing_ok=True)
        if told.storage == "ok" and not is_seen:
            told = NodeReport(**{**vars(told), "storage": f"{storage} is not shared"})
        checked.append(told)
    return checked


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def on_node(node_id: str, work: Any, **options: Any) -> Any:
    """A function as a task of one node, which reserves nothing unless told to."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(work).options(num_cpus=0, scheduling_strategy=strategy, **options)
