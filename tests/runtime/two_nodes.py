"""A run over two nodes, made on one machine, that loses one of them. Prints what happened as JSON.

With the word `elastic` it goes on with one learner until the node is replaced, and then with two.

A process of its own, since a process is connected to one Ray at a time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.runtime.driver.ray_cluster import cluster_settings
from tats_ray.runtime.resources import preflight
from tats_ray.view.tracking import RunFiles
from tests.runtime.gate import ENV_ID, Gate, free_port
from tests.runtime.test_recipe import small_config

STORE = 80 * 2**20


class Filler:
    """Occupies a CPU, so that the learners have to spread."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def main(folder: Path, videos: SyntheticSet, *, is_elastic: bool) -> dict[str, Any]:
    cluster_settings(is_elastic=is_elastic)
    cluster = Cluster(
        initialize_head=True,
        connect=False,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE,
            "dashboard_port": free_port(),
        },
    )
    counts = (1, 1) if is_elastic else (2, 1)
    nodes = [cluster.add_node(num_cpus=count, object_store_memory=STORE) for count in counts]
    try:
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        run = _run_elastic if is_elastic else _run
        return run(cluster, nodes, folder, videos)
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
    told: dict[str, Any] = {}

    def lose_a_node() -> None:
        told["placed"] = _nodes_of_groups()
        ray.kill(filler)
        cluster.remove_node(nodes[1], allow_graceful=False)
        gate.wait_until_left(1)

    gate = Gate({5: lose_a_node}, num_ranks=2)
    told["not_shared"] = _refusal_of_a_folder_that_only_the_driver_sees(folder)
    return {**_launched(config, folder, gate.on_tick), **told}


def _run_elastic(
    cluster: Any, nodes: list[Any], folder: Path, videos: SyntheticSet
) -> dict[str, Any]:
    launch.RESIZE_CHECK_S = 5.0
    config = small_config(
        videos,
        folder,
        env={"id": ENV_ID},
        log={"every_steps": 1},
        cluster={"num_workers": 2, "min_workers": 1, "threads": 1, "timeout_s": 120},
    )
    placed: list[int] = []

    def lose_a_node() -> None:
        placed.extend(_nodes_of_groups())
        cluster.remove_node(nodes[1], allow_graceful=False)
        gate.wait_until_left(1)

    # The one learner that is left stands before step 7 until the other one is back.
    gate = Gate({5: lose_a_node, 7: lambda: None}, num_ranks=2)

    def on_tick() -> None:
        gate.on_tick()
        if len(nodes) == 2 and gate.steps() == [7]:
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=STORE))

    return {**_launched(config, folder, on_tick), "placed": placed}


def _nodes_of_groups() -> list[int]:
    """Of each placement group: on how many nodes it is."""
    return sorted(
        len(set(group["bundles_to_node_id"].values()))
        for group in placement_group_table().values()
        if group["state"] == "CREATED"
    )


def _launched(config: RunConfig, folder: Path, on_tick: Callable[[], None]) -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    files = RunFiles(folder)

    def on_event(event: launch.Event) -> None:
        files.on_event(event)
        events.append(dict(event))

    outcome = launch.run(
        config, folder, make_plan(config).placement, on_event=on_event, on_tick=on_tick
    )
    files.close()
    return {"events": events, "finished": outcome.is_finished, "step": outcome.step}


class Local(PosixPath):
    """A folder of this name is another one for every process, so it must keep the name."""

    def resolve(self, strict: bool = False) -> Local:
        return self


def _refusal_of_a_folder_that_only_the_driver_sees(folder: Path) -> str:
    """The workers start elsewhere."""
    os.chdir(folder)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    try:
        preflight.check_nodes(nodes, folder)
        preflight.check_nodes(nodes, Local("/proc/self/cwd"))
    except UsageError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    run_folder, train_list, val_list = map(Path, sys.argv[1:4])
    made = SyntheticSet(train_list=train_list, val_list=val_list, classes=())
    result = main(run_folder, made, is_elastic=sys.argv[4:] == ["elastic"])
    print("RESULT " + json.dumps(result, default=str))
