"""Resources for a run: what the cluster has, and waiting for nodes of its autoscaler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.core.errors import UsageError
from tats_ray.runtime.resources.request import DECODE, ResourceRequest

_POLL_S = 1.0


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


def ensure_room(request: ResourceRequest, limit_s: float, tell: Callable[[str], None]) -> None:
    """Where the cluster can grow, wait until it has what a run reserves; elsewhere return at once.

    A placement group of the learners' shape is what its autoscaler plans for. It ends with this
    process, so a killed driver leaves no wish behind.

    Args:
        limit_s: `cluster.nodes_timeout_s`.
        tell: gets a line for people when waiting begins.

    Raises:
        UsageError: naming what is short after that time.
    """
    short = _short(request)
    if not short or not has_node_types():
        return
    tell(f"{short}: waiting up to {limit_s:g} s for the autoscaler")
    group = placement_group(_wishes(request), strategy="PACK")
    try:
        give_up = time.monotonic() + limit_s
        while not group.wait(_POLL_S):
            if time.monotonic() > give_up:
                raise UsageError(
                    f"{_short(request) or short} after {limit_s:g} s of waiting for nodes "
                    f"(cluster.nodes_timeout_s); see `ray status`, raise it, or "
                    f"{request.way_out()}"
                )
    finally:
        remove_placement_group(group)


def for_decoding() -> dict[str, float]:
    """What a decode actor reserves beside its CPU: a place on a node that is meant for it, where
    the cluster has such nodes or could start them.
    """
    from ray._private.state import state

    most = state.get_max_resources_from_cluster_config() or {}
    has_some = ray.cluster_resources().get(DECODE) or most.get(DECODE)
    return {DECODE: 1.0} if has_some else {}


def _wishes(request: ResourceRequest) -> list[dict[str, float]]:
    decoder = {**request.decode.each, **for_decoding()}
    others = request.processes[: len(request.processes) - request.decode.count]
    return [*others, *[decoder] * request.decode.count]


def _short(request: ResourceRequest) -> str:
    """What the present nodes lack, in words; empty when nothing does."""
    have = ray.cluster_resources()
    decoding = {kind: float(request.decode.count) for kind in for_decoding()}
    for kind, amount in {**request.total, **decoding}.items():
        if amount > have.get(kind, 0.0):
            return f"the run needs {amount:g} {kind}, the cluster has {have.get(kind, 0.0):g}"
    return ""
