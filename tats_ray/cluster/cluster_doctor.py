"""`tats cluster doctor`: every node with its own verdict, and the network between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tats_ray.cluster.submit import submit
from tats_ray.core.errors import TatsError
from tats_ray.runtime.cluster.network import ClusterError, all_reduce_speed
from tats_ray.runtime.cluster.nodes import (
    NodeReport,
    join_cluster,
    leave_cluster,
    look_at_nodes,
)
from tats_ray.view.tables import print_table

HEAD = ("node", "python", "ray", "torch", "gpu", "driver", "storage", "clips/s", "verdict")


def cluster_doctor(*, storage: str = "", seconds: float = 10.0, ray_address: str = "") -> None:
    """Look at every node from a driver inside the cluster.

    Raises:
        TatsError: when a node is not fit for a run.
    """
    join_cluster(ray_address)
    try:
        reports = look_at_nodes(str(Path(storage).absolute()) if storage else "")
        verdicts = [verdict(told, reports[0]) for told in reports]
        rows = [_row(told, word) for told, word in zip(reports, verdicts, strict=True)]
        print_table(HEAD, rows)
        network = _network(reports, verdicts, seconds)
        print(f"all-reduce: {network}", flush=True)
    finally:
        leave_cluster()
    bad = [told.host for told, word in zip(reports, verdicts, strict=True) if word != "ok"]
    if bad:
        raise TatsError(f"nodes not ready for a run: {', '.join(bad)}; see their verdicts")
    if network.startswith("FAIL"):
        raise TatsError("the nodes cannot train together; see all-reduce above")


def submit_doctor(address: str, *, storage: str = "", seconds: float = 10.0) -> None:
    """The same from outside the cluster: as a job, whose output is shown."""
    words = ["cluster", "doctor", "--seconds", f"{seconds:g}"]
    submit([*words, *(["--storage", storage] if storage else [])], address=address)


def verdict(told: NodeReport, head: NodeReport) -> str:
    """ok, or the first thing that keeps a node from working with the head."""
    if told.error:
        return f"FAIL {told.error}"
    for name in ("python", "ray", "torch", "tats-ray"):
        mine, theirs = told.versions.get(name), head.versions.get(name)
        if mine != theirs:
            return f"FAIL {name} {mine or 'missing'}, but the head has {theirs or 'none'}"
    if told.storage not in ("ok", "-"):
        return f"FAIL {told.storage}"
    if told.driver and not told.gpus:
        return f"FAIL driver {told.driver}, but torch sees no GPU"
    return "ok"


def _row(told: NodeReport, word: str) -> list[str]:
    versions = told.versions
    return [
        told.host,
        *(versions.get(name) or "-" for name in ("python", "ray", "torch")),
        _counted(told.gpus),
        told.driver or "-",
        "ok" if told.storage == "ok" else "-" if told.storage == "-" else "bad",
        f"{told.clips_per_s:.0f}",
        word,
    ]


def _counted(names: Sequence[str]) -> str:
    kinds = {name: names.count(name) for name in names}
    return ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "0"


def _network(reports: list[NodeReport], verdicts: list[str], seconds: float) -> str:
    """What the fit nodes can move: GPU nodes by NCCL where there are two, else CPUs by gloo."""
    fit = [told for told, word in zip(reports, verdicts, strict=True) if word == "ok"]
    with_gpu = [told for told in fit if told.gpus]
    use_gpu = len(with_gpu) > 1
    ends = with_gpu if use_gpu else fit
    if len(ends) < 2:
        return "left out: it needs two nodes that passed"
    try:
        rate = all_reduce_speed([e.node_id for e in ends], use_gpu=use_gpu, seconds=seconds)
    except ClusterError as error:
        return f"FAIL {error}"
    kind = "GPU nodes, NCCL" if use_gpu else "nodes, gloo on CPUs"
    return f"{len(ends)} {kind}: {rate:.2f} GiB/s, summing 64 MiB for {seconds:g} s"
