"""What a cluster lacks is said in words before anything is placed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tats_ray.config.load import parse_config
from tats_ray.core.errors import UsageError
from tats_ray.runtime.preflight import NodeReport, check_reports, check_resources

OWN = NodeReport("head", {"Python": "3.11.2", "Ray": "2.60.0", "torch": "2.15.0"}, "token")


def node(cpus: float, gpus: float = 0, store_mb: int = 1000) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "object_store_memory": store_mb * 2**20}


@pytest.mark.parametrize(
    ("cluster", "nodes"),
    [
        ({"num_workers": 3}, [node(2), node(1)]),
        ({"num_workers": 2, "cpus_per_worker": 3}, [node(3), node(5)]),
        ({"num_workers": 4, "cpus_per_worker": 0.5}, [node(2)]),
        ({"num_workers": 9, "min_workers": 3}, [node(2), node(1)]),
        ({"num_workers": 2, "cpus_per_worker": 0}, [node(0)]),
        ({"num_workers": 2, "use_gpu": True, "policy_gpus": 0.5}, [node(8, 2), node(1, 1)]),
        ({"num_workers": 1, "use_gpu": True, "policy_gpus": 2}, [node(8, 2), node(8, 1)]),
    ],
)
def test_cluster_that_holds_the_run_is_accepted(
    cluster: dict[str, Any], nodes: list[dict[str, float]]
) -> None:
    check_resources(parse_config({"cluster": cluster}), nodes, rollout_bytes=800 * 2**20)


@pytest.mark.parametrize(
    ("cluster", "nodes", "message"),
    [
        (
            {"num_workers": 3, "cpus_per_worker": 2},
            [node(4)],
            r"the run needs 6 CPU, the cluster has 4 CPU on 1 node: does not fit, because 2 CPU on "
            r"one node for each learner leaves room for 2 of 3; lower cluster\.num_workers",
        ),
        (
            {"num_workers": 9, "min_workers": 3},
            [node(2)],
            r"the run needs 3 CPU, the cluster has 2 CPU on 1 node: .* room for 2 of 3; lower",
        ),
        (
            {"num_workers": 2, "cpus_per_worker": 3},  # enough in all, but not on one node
            [node(2), node(2), node(2)],
            r"needs 6 CPU, the cluster has 6 CPU on 3 nodes: does not fit, .* room for 0 of 2",
        ),
        (
            {"num_workers": 1, "use_gpu": True, "cpus_per_worker": 6},
            [node(8), node(2, 4)],
            r"needs 1 GPU \+ 6 CPU, the cluster has 4 GPU \+ 10 CPU on 2 nodes: does not fit, "
            r"because 1 GPU \+ 6 CPU on one node",
        ),
        (
            {"num_workers": 2, "use_gpu": True, "policy_gpus": 1},
            [node(8, 2)],
            r"the policy learner needs 1 GPU on one node and the learners leave 0",
        ),
        (
            {"num_workers": 1},
            [node(8, store_mb=2000), node(8, store_mb=900)],
            r"up to 800 MB of rollouts .* over 80% of a node's object store of 900 MB; lower",
        ),
    ],
)
def test_cluster_that_does_not_hold_the_run_is_refused_with_the_reason(
    cluster: dict[str, Any], nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_resources(parse_config({"cluster": cluster}), nodes, rollout_bytes=800 * 2**20)


def test_nodes_alike_are_accepted() -> None:
    check_reports(OWN, {"10.0.0.2 abc": replace(OWN, host="worker"), "10.0.0.1 def": OWN})


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, r"node 10\.0\.0\.2 abc gave no answer within 60 s; take it out"),
        (
            replace(OWN, host="w", versions={**OWN.versions, "torch": "2.11.0"}),
            r"\(w\) has torch 2\.11\.0, the driver \(head\) has 2\.15\.0; install the same",
        ),
        (
            replace(OWN, host="w", versions={**OWN.versions, "Python": "3.12.1"}),
            r"\(w\) has Python 3\.12\.1, the driver",
        ),
        (replace(OWN, host="w", token=None), r"\(w\) does not see the run folder .*checkpoint\.f"),
        (replace(OWN, host="w", token="other"), r"\(w\) does not see the run folder of the driver"),
    ],
)
def test_node_that_differs_is_refused_with_the_way_out(
    report: NodeReport | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_reports(OWN, {"10.0.0.1 aaa": OWN, "10.0.0.2 abc": report})
