"""A run over two nodes, made on one machine, that loses one of them. Prints what happened as JSON.

A process of its own, since a process is connected to one Ray at a time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.recipes.plan import make_plan
from tats_ray.runtime import launch, preflight
from tats_ray.view.tracking import RunFiles
from tests.runtime.gate import ENV_ID, Gate
from tests.runtime.test_recipe import small_config

STORE = 80 * 2**20


class Filler:
    """Occupies a CPU, so that the learners have to spread."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def main(folder: Path, videos: SyntheticSet) -> dict[str, Any]:
    launch.cluster_settings()
    cluster = Cluster(
        initialize_head=True,
        connect=False,
        head_node_args={"num_cpus": 0, "object_store_memory": STORE},
    )
    nodes = [cluster.add_node(num_cpus=count, object_store_memory=STORE) for count in (2, 1)]
    try:
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return _run(cluster, nodes, folder, videos)
    finally:
        ray.shutdown()
        cluster.shutdown()


def _run(cluster: Any, nodes: list[Any], folder: Path, videos: SyntheticSet) -> dict[str, Any]:
    big = nodes[0].node_id
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(big, soft=False)
    filler: Any = ray.remote(Filler).options(num_cpus=1, scheduling_strategy=here).remote()
    assert ray.get(filler.node.remote(), timeout=60) == big
    config = small_config(
        videos,
        folder,
        env={"id": ENV_ID},
        log={"every_steps": 1},
        cluster={"num_workers": 2, "threads": 1, "timeout_s": 60},
    )
    told: dict[str, Any] = {"placed": [], "events": []}

    def lose_a_node() -> None:
        table = placement_group_table().values()
        told["placed"] = sorted(
            len(set(group["bundles_to_node_id"].values()))
            for group in table
            if group["state"] == "CREATED"
        )
        ray.kill(filler)
        cluster.remove_node(nodes[1], allow_graceful=False)

    gate = Gate({5: lose_a_node}, num_ranks=2)
    told["not_shared"] = _refusal_of_a_folder_that_only_the_driver_sees(folder)
    files = RunFiles(folder)

    def on_event(event: launch.Event) -> None:
        files.on_event(event)
        told["events"].append(dict(event))

    outcome = launch.run(
        config, folder, make_plan(config).placement, on_event=on_event, on_tick=gate.on_tick
    )
    files.close()
    return {**told, "finished": outcome.is_finished, "step": outcome.step}


def _refusal_of_a_folder_that_only_the_driver_sees(folder: Path) -> str:
    """Each process has a folder /proc/self/cwd of its own; the workers start elsewhere."""
    os.chdir(folder)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    try:
        preflight.check_nodes(nodes, folder)
        preflight.check_nodes(nodes, Path("/proc/self/cwd"))
    except UsageError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    run_folder, train_list, val_list = map(Path, sys.argv[1:4])
    result = main(run_folder, SyntheticSet(train_list=train_list, val_list=val_list, classes=()))
    print("RESULT " + json.dumps(result, default=str))
