"""Room for a run: what the cluster has, and waiting for what its autoscaler can bring."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.config.schema import Clustered
from tats_ray.core.errors import UsageError
from tats_ray.runtime.resources.preflight import wanted_cpus, wanted_gpus

_POLL_S = 1.0


def usable_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(asked: int, num_neighbours: int) -> int:
    """Torch threads of one of `num_neighbours` processes on this machine; 0 shares all cores."""
    return asked or max(usable_cores() // num_neighbours, 1)


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Keeps an actor with the driver, so that a lost worker node cannot take it away."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def has_node_types() -> bool:
    """Whether an autoscaler with node types of its own runs this cluster.

    Where none does, Ray names the type of each node after the node itself. Its newer autoscaler
    tells the nodes their types; its older one, which the local provider needs, keeps them in its
    report.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.experimental.internal_kv import _internal_kv_get

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    types = {n.node_id: n.ray_node_type_name for n in (*status.active_nodes, *status.idle_nodes)}
    report = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
    types |= (report.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(name != f"node_{node_id}" for node_id, name in types.items())


def ensure_room(config: Clustered, tell: Callable[[str], None]) -> None:
    """Where the cluster can grow, wait until it has what a run reserves; elsewhere return at once.

    A placement group of the learners' shape is what its autoscaler plans for. It ends with this
    process, so a killed driver leaves no wish behind.

    Args:
        tell: gets a line for people when waiting begins.

    Raises:
        UsageError: naming what is short after `cluster.nodes_timeout_s`.
    """
    short = _short(config)
    if not short or not has_node_types():
        return
    limit = config.cluster.nodes_timeout_s
    tell(f"{short}: waiting up to {limit:g} s for the autoscaler")
    group = placement_group(_bundles(config), strategy="PACK")
    try:
        give_up = time.monotonic() + limit
        while not group.wait(_POLL_S):
            if time.monotonic() > give_up:
                raise UsageError(
                    f"{_short(config) or short} after {limit:g} s of waiting for nodes "
                    f"(cluster.nodes_timeout_s); see `ray status`, raise it, or lower "
                    "cluster.num_workers, cluster.cpus_per_worker or cluster.policy_gpus"
                )
    finally:
        remove_placement_group(group)


def _short(config: Clustered) -> str:
    """What the present nodes lack, in words; empty when nothing does."""
    have = ray.cluster_resources()
    for kind, amount in {"CPU": wanted_cpus(config), "GPU": wanted_gpus(config)}.items():
        if amount > have.get(kind, 0.0):
            return f"the run needs {amount:g} {kind}, the cluster has {have.get(kind, 0.0):g}"
    return ""


def _bundles(config: Clustered) -> list[dict[str, float]]:
    """What the fewest MAE learners reserve, the rollout workers, and the policy learner."""
    cluster = config.cluster
    learner = {"CPU": cluster.cpus_per_worker, **({"GPU": 1.0} if cluster.use_gpu else {})}
    bundles = [learner] * cluster.fewest_workers
    if config.num_rollout_workers:
        gpus = {"GPU": cluster.rollout_gpus} if cluster.rollout_gpus else {}
        bundles += [{"CPU": cluster.cpus_per_worker, **gpus}] * config.num_rollout_workers
    if cluster.policy_gpus:
        bundles.append({"GPU": cluster.policy_gpus})
    return bundles
