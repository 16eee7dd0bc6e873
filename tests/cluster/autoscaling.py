"""A run on a cluster that starts empty and grows; a script, for a process namespace of its own.

Ray's fake provider starts the nodes as processes of this machine, and the end stops every Ray
process in sight. `test_namespaces.py` runs this where only its own are in sight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import load_config
from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import synthesize
from tats_ray.runs.pretrain_run import RunResult, pretrain
from tats_ray.runtime.driver.ray_cluster import cluster_settings

ADDRESS = "127.0.0.1:6399"
HEAD = "ray.head.default"  # the fake provider knows the head by this name
SMALL = Path(__file__).parent / "small.yaml"
STARTED = time.monotonic()

# A worker has one core; the head has none, so that the first run finds nothing to run on.
CLUSTER = {
    "cluster_name": "fake",
    "max_workers": 2,
    "idle_timeout_minutes": 0.1,
    "upscaling_speed": 1.0,
    "provider": {
        "type": "fake_multinode",
        "gcs_address": ADDRESS,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 150_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "head_node_type": HEAD,
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{
        name: []
        for name in (
            *("initialization_commands", "setup_commands", "head_setup_commands"),
            *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
            *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
        )
    },
    "file_mounts_sync_continuously": False,
}


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


def start_head(folder: Path) -> None:
    file = folder / "cluster.json"
    file.write_text(json.dumps(CLUSTER))
    words = "start --head --num-cpus=0 --object-store-memory=150000000 --port=6399"
    subprocess.run(
        [
            *ray_command(),
            *words.split(),
            "--node-ip-address=127.0.0.1",
            f"--autoscaling-config={file}",
        ],
        env={**os.environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def ray_command() -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts"]


def num_workers() -> int:
    """Nodes that are alive, without the head."""
    return sum(node["Alive"] for node in ray.nodes()) - 1


def until(what: str, ready: Callable[[], bool], timeout_s: float = 90) -> None:
    give_up = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > give_up:
            sys.exit(f"waited {timeout_s:g} s until {what}; {num_workers()} workers")
        time.sleep(0.5)
    say(what)


def until_workers(what: str, wanted: int) -> None:
    until(what, lambda: num_workers() == wanted)


def hold(seconds: float) -> None:
    time.sleep(seconds)


def main(folder: Path) -> None:
    cluster_settings()
    start_head(folder)
    ray.init(ADDRESS, logging_level="ERROR", log_to_driver=False)
    cores = ray.cluster_resources().get("CPU", 0)
    say(f"the head is up, with {num_workers()} workers and {cores} CPU")
    made = synthesize(folder / "videos", num_train=6, num_val=2, num_frames=12, size=48, workers=1)
    flags = {
        "name": "grown",
        "data.train_list": made.train_list,
        "checkpoint.folder": folder / "runs",
        "cluster.address": ADDRESS,
        "cluster.threads": 1,
        "loop.epochs": 150,
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    config = load_config(SMALL, words)
    outcomes: list[RunResult] = []
    run = threading.Thread(target=lambda: outcomes.append(pretrain(config)), daemon=True)
    run.start()
    until_workers("the run's demand brought a worker", 1)
    # Before it trains, the worker's core is free, and a task would take it.
    metrics = folder / "runs" / "grown" / "metrics.jsonl"
    until("the run trains", lambda: metrics.exists() and bool(metrics.read_text()))
    task = ray.remote(hold).options(num_cpus=1).remote(1.0)
    until_workers("a task's demand brought a second worker", 2)
    ray.get(task, timeout=60)
    until_workers("idle, the second worker was removed", 1)
    assert run.is_alive(), "the run ended before the worker was removed; give it more epochs"
    say("training goes on")
    run.join(timeout=120)
    assert not run.is_alive(), "the run did not end in 120 s"
    (result,) = outcomes
    assert result.outcome.is_finished, result
    assert checkpoints.load(folder / "runs" / "grown").position.epoch == 150
    say(f"the run finished at step {result.outcome.step}")
    until_workers("idle, the last worker was removed", 0)
    refuse_what_no_type_offers(folder, words)
    ray.shutdown()


def refuse_what_no_type_offers(folder: Path, words: list[str]) -> None:
    """A wish that the autoscaler cannot fulfil ends after its deadline, in one line."""
    many = folder / "videos" / "many.csv"
    many.write_text((folder / "videos" / "train.csv").read_text() * 4)
    more = ["--name", "big", "--cluster.num_workers", "9", "--cluster.nodes_timeout_s", "3"]
    more += ["--optim.batch_size", "1", "--data.train_list", str(many)]
    with pytest.raises(UsageError, match=r"needs 9 CPU.* after 3 s of waiting") as refused:
        pretrain(load_config(SMALL, [*words, *more]))
    say(f"refused: {refused.value}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
