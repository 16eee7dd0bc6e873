"""Checks of the cluster before anything is placed."""

from __future__ import annotations

import platform
import socket
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.core.errors import UsageError
from tats_ray.core.storage import replace_text
from tats_ray.core.words import counted
from tats_ray.runtime.resources.buffer_shards import nodes_of_shards
from tats_ray.runtime.resources.packing import (
    PER_UNIT,
    Space,
    beside_policy_learner,
    most_rollout_workers,
    units,
)
from tats_ray.runtime.resources.request import DECODE, ResourceRequest, listed, summed

Resources = Mapping[str, float]
DEADLINE_S = 60.0
"""For a node to answer; its first worker process has to start."""


@dataclass(frozen=True)
class NodeFacts:
    """What a node says about itself."""

    host: str
    versions: Mapping[str, str]
    marker: str | None
    """What it read from the run folder; None where there was nothing to read."""


def check_cluster(request: ResourceRequest, folder: Path, *, rollout_bytes: int = 0) -> None:
    """Refuse a cluster that cannot do the run.

    Args:
        rollout_bytes: of a shard of the buffer in an object store at most, copies counted.

    Raises:
        UsageError: with what does not fit, and the way out.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    check_resources(request, [node["Resources"] for node in nodes], rollout_bytes=rollout_bytes)
    if len(nodes) > 1:
        check_nodes(nodes, folder)


def in_words(request: ResourceRequest, nodes: Sequence[Resources]) -> str:
    """What a run needs, and what the cluster has."""
    return (
        f"the run needs {listed(request.total)}, the cluster has {listed(summed(nodes))} on "
        f"{counted(len(nodes), 'node')}"
    )


def check_resources(
    request: ResourceRequest, nodes: Sequence[Resources], *, rollout_bytes: int = 0
) -> None:
    """Whether every room finds a node; each learner and each rollout worker has to fit into one.

    Raises:
        UsageError: with needs, haves and the reason.
    """
    _check_places(request, nodes)
    stores = [node["object_store_memory"] for node in nodes if "object_store_memory" in node]
    rollout_bytes *= max(Counter(_nodes_of_policy_learners(request, nodes)).values(), default=0)
    if stores and rollout_bytes > _STORE_SHARE * min(stores):
        raise UsageError(
            f"up to {rollout_bytes / 2**20:.0f} MB of rollouts lie in the buffer and on their way "
            f"out of it, over {_STORE_SHARE:.0%} of a node's object store of "
            f"{min(stores) / 2**20:.0f} MB; lower loop.rollout_fraction or loop.max_staleness, or "
            "start Ray with more object_store_memory"
        )


_STORE_SHARE = 0.8
"""The rest is for weights on their way and for arguments of calls."""


def _check_places(request: ResourceRequest, nodes: Sequence[Resources]) -> None:
    words = f"{in_words(request, nodes)}: does not fit, because"
    learners, policy, rollout = request.learners, request.policy, request.rollout
    own, of_policy, share = (units(bundle.gpu) for bundle in (learners, policy, rollout))
    spaces = [Space.of(request, node) for node in nodes]
    if policy.count > 1 and of_policy:
        spaces = _beside_all(request, nodes, spaces, words)
        policy, of_policy = replace(policy, gpu=0.0), 0
    places = sum(space.holds(own) for space in spaces)
    if places < learners.count:
        raise UsageError(
            f"{words} {listed(learners.each)} on one node for each learner leaves room for "
            f"{places} of {learners.count}; {request.way_out(learners)}"
        )
    # What a node keeps of its GPUs once the others hold all the learners that they can.
    spare = max(s.gpus - own * max(learners.count - (places - s.holds(own)), 0) for s in spaces)
    if of_policy > spare:
        raise UsageError(
            f"{words} the policy learner needs {policy.gpu:g} GPU on one node and the learners "
            f"leave {spare / PER_UNIT:g}; {request.way_out(learners, policy, kinds=['GPU'])}"
        )
    found = max(
        most_rollout_workers(left, learners.count, own, share)
        for left in beside_policy_learner(spaces, of_policy)
    )
    if found < rollout.count:
        raise UsageError(
            f"{words} {listed(rollout.each)} on one node for each rollout worker leaves room for "
            f"{found} of {rollout.count} beside the learners; {request.way_out(rollout)}"
        )
    _check_decoders(request, nodes, words)


def _check_decoders(request: ResourceRequest, nodes: Sequence[Resources], words: str) -> None:
    """They go to nodes that are meant for them, and to any where the cluster has none."""
    if meant := [node for node in nodes if node.get(DECODE, 0.0)]:
        found = sum(int(min(node[DECODE], node.get("CPU", 0.0))) for node in meant)
        where = f" on nodes with the resource {DECODE}"
    else:
        others = request.total["CPU"] - request.decode.count * request.decode.cpu
        found = max(int(sum(node.get("CPU", 0.0) for node in nodes) - others), 0)
        where = " beside the others"
    if found < request.decode.count:
        raise UsageError(
            f"{words} 1 CPU for each decode actor leaves room for {found} of "
            f"{request.decode.count}{where}; lower data.num_workers, or set data.reader local"
        )


def _nodes_of_policy_learners(request: ResourceRequest, nodes: Sequence[Resources]) -> list[int]:
    """Of each, the number of its node."""
    by_name = {f"{number:06}": node for number, node in enumerate(nodes)}
    policy = request.policy
    return [int(name) for name in nodes_of_shards(policy.count, policy.gpu, by_name)]


def _beside_all(
    request: ResourceRequest, nodes: Sequence[Resources], spaces: Sequence[Space], words: str
) -> list[Space]:
    """What several policy learners leave where they are put."""
    left, each = list(spaces), units(request.policy.gpu)
    for done, number in enumerate(_nodes_of_policy_learners(request, nodes)):
        left[number] = left[number].less(0, each)
        if left[number].gpus < 0:
            raise UsageError(
                f"{words} {request.policy.gpu:g} GPU on one node for each policy learner, one on "
                f"every node in turn, leaves room for {done} of {request.policy.count}; "
                f"{request.way_out(request.policy)}"
            )
    return left


def check_nodes(nodes: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Ask every node for its versions, and for a marker that this one writes into the run folder.

    Raises:
        UsageError: for a node that is silent, has other versions, or does not see the folder.
    """
    marker = uuid.uuid4().hex
    # Tasks start in the folder that their node was started in.
    file = folder.resolve() / f".preflight-{marker[:8]}"
    replace_text(file, marker)
    try:
        check_reports(NodeFacts(socket.gethostname(), _versions(), marker), _ask(nodes, file))
    finally:
        file.unlink(missing_ok=True)


def check_reports(own: NodeFacts, others: Mapping[str, NodeFacts | None]) -> None:
    """Compare what nodes say with the driver's own report.

    Raises:
        UsageError: naming the first node that differs.
    """
    for name, report in sorted(others.items()):
        if report is None:
            raise UsageError(
                f"node {name} did not answer within {DEADLINE_S:g} s; remove it from the cluster, "
                "or look at its raylet.out"
            )
        where = f"node {name} ({report.host})"
        for package, mine in own.versions.items():
            theirs = report.versions.get(package)
            if theirs != mine:
                raise UsageError(
                    f"{where} has {package} {theirs}, the driver ({own.host}) has {mine}; install "
                    "the same requirements.lock on both"
                )
        if report.marker != own.marker:
            raise UsageError(
                f"{where} does not see the run folder of the driver ({own.host}); set "
                "checkpoint.folder to a folder that all nodes share"
            )


def _ask(nodes: Sequence[Mapping[str, Any]], file: Path) -> dict[str, NodeFacts | None]:
    """A small task on each node; None for those that do not answer in time."""
    task = ray.remote(num_cpus=0, max_retries=0)(report)
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerAddress']} {node['NodeID'][:6]}"
        asked[task.options(scheduling_strategy=here).remote(str(file))] = name
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=DEADLINE_S)
    for reply in late:
        ray.cancel(reply, force=True)
    return {
        **{asked[reply]: None for reply in late},
        **{asked[reply]: ray.get(reply, timeout=DEADLINE_S) for reply in ready},
    }


def report(file: str) -> NodeFacts:
    """What this node says; waits a little for a file system whose caches lag behind."""
    path, deadline = Path(file), time.monotonic() + 10
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    marker = path.read_text() if path.is_file() else None
    return NodeFacts(socket.gethostname(), _versions(), marker)


def _versions() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "Ray": version("ray"),
        "torch": version("torch"),
    }
