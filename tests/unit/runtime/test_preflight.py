"""What a cluster lacks is said in words before anything is placed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.config.load import parse_config
from tats_ray.core.errors import UsageError
from tats_ray.runtime.resources import placement, preflight
from tats_ray.runtime.resources.preflight import (
    NodeFacts,
    check_nodes,
    check_reports,
    check_resources,
)
from tats_ray.runtime.resources.request import ResourceRequest

OWN = NodeFacts("head", {"Python": "3.11.2", "Ray": "2.60.0", "torch": "2.15.0"}, "marker")


def run(*, decoders: int = 0, **cluster: Any) -> ResourceRequest:
    """With rollout workers and decode actors, for each learner, where their number is given."""
    source = "workers" if "rollout_workers" in cluster else "learner"
    data = {"reader": "ray", "num_workers": decoders} if decoders else {}
    raw = {"cluster": cluster, "loop": {"source": source}, "data": data}
    return ResourceRequest.of(parse_config(raw))


def node(cpus: float, gpus: float = 0, store_mb: int = 1000, decode: int = 0) -> dict[str, float]:
    own = {"decode": float(decode)} if decode else {}
    return {"CPU": cpus, "GPU": gpus, "object_store_memory": store_mb * 2**20, **own}


ON_GPUS = {"use_gpu": True, "policy_gpus": 1}


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
        # All learners on the larger node: one on the smaller would break up its three GPUs.
        ({"num_workers": 3, "use_gpu": True, "policy_gpus": 3}, [node(1, 3), node(8, 4)]),
        ({"num_workers": 30, "cpus_per_worker": 0.1}, [node(3)]),
        # One node: what adds up fits.
        ({"num_workers": 2, "rollout_workers": 4, "cpus_per_worker": 0.5}, [node(3)]),
        ({**ON_GPUS, "rollout_workers": 4, "rollout_gpus": 0.25}, [node(5, 3)]),
        # The learner has to leave the small node to two workers.
        ({"use_gpu": True, "rollout_workers": 3, "rollout_gpus": 0.5}, [node(2, 1), node(2, 2)]),
        # Several policy learners, one for each node in turn.
        (
            {"num_workers": 2, "use_gpu": True, "policy_gpus": 1, "policy_learners": 2},
            [node(8, 2), node(8, 2)],
        ),
        (
            {"num_workers": 3, "use_gpu": True, "policy_gpus": 0.5, "policy_learners": 2},
            [node(8, 4, store_mb=2500)],
        ),
        ({"num_workers": 2, "policy_learners": 2}, [node(2, store_mb=2000), node(0)]),
        ({"decoders": 3, "num_workers": 2}, [node(5), node(3)]),
        ({"decoders": 4, "use_gpu": True}, [node(1, 1), node(8, decode=4)]),
        # Workers on CPUs leave the node of the GPUs to the learners.
        ({"num_workers": 2, "use_gpu": True, "rollout_workers": 2}, [node(2), node(2, 2)]),
    ],
)
def test_cluster_that_holds_the_run_is_accepted(
    cluster: dict[str, Any], nodes: list[dict[str, float]]
) -> None:
    check_resources(run(**cluster), nodes, rollout_bytes=800 * 2**20)


@pytest.mark.parametrize(
    ("cluster", "nodes", "message"),
    [
        (
            {"num_workers": 3, "cpus_per_worker": 2},
            [node(4)],
            r"the run needs 6 CPU, the cluster has 4 CPU on 1 node: does not fit, because 2 CPU on "
            r"one node for each learner leaves room for 2 of 3; lower "
            r"cluster\.num_workers or cluster\.cpus_per_worker$",
        ),
        (
            {"num_workers": 9, "min_workers": 3},
            [node(2)],
            r"the run needs 3 CPU, the cluster has 2 CPU on 1 node: .* room for 2 of 3; lower "
            r"cluster\.min_workers or cluster\.cpus_per_worker$",
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
            r"because 1 GPU \+ 6 CPU on one node .*; lower cluster\.cpus_per_worker, "
            r"or set cluster\.use_gpu false$",
        ),
        (
            {"num_workers": 2, "use_gpu": True, "policy_gpus": 1},
            [node(8, 2)],
            r"the policy learner needs 1 GPU on one node and the learners leave 0; "
            r"lower cluster\.num_workers or cluster\.policy_gpus, or set cluster\.use_gpu false$",
        ),
        (
            {**ON_GPUS, "rollout_workers": 4, "rollout_gpus": 1},
            [node(16, 2)],
            r"needs 6 GPU \+ 5 CPU, the cluster has 2 GPU \+ 16 CPU on 1 node: does not fit, "
            r"because 1 GPU \+ 1 CPU on one node for each rollout worker leaves room for 0 of 4 "
            r"beside the learners; lower cluster\.rollout_workers, cluster\.rollout_gpus or",
        ),
        (
            {"num_workers": 2, "rollout_workers": 1, "cpus_per_worker": 2},  # of 6, in halves
            [node(3), node(3)],
            r"needs 6 CPU, the cluster has 6 CPU on 2 nodes: does not fit, because 2 CPU on one "
            r"node for each rollout worker leaves room for 0 of 1",
        ),
        (
            {"use_gpu": True, "rollout_workers": 3, "rollout_gpus": 0.5},
            [node(8, 1), node(8, 1)],
            r"0\.5 GPU \+ 1 CPU on one node for each rollout worker leaves room for 2 of 3",
        ),
        (
            {"num_workers": 4, "use_gpu": True, "policy_gpus": 1, "policy_learners": 2},
            [node(8, 4)],
            r"needs 6 GPU \+ 4 CPU, .* because 1 GPU \+ 1 CPU on one node for each learner leaves "
            r"room for 2 of 4",
        ),
        (
            {"num_workers": 4, "use_gpu": True, "policy_gpus": 1, "policy_learners": 4},
            [node(8, 3), node(8)],
            r"because 1 GPU on one node for each policy learner, one on every node in turn, leaves "
            r"room for 3 of 4; lower cluster\.policy_learners or cluster\.policy_gpus$",
        ),
        (
            {"num_workers": 4, "policy_learners": 3},  # two shards on one of the nodes
            [node(8, store_mb=1900), node(8, store_mb=1900)],
            r"up to 1600 MB of rollouts .* over 80% of a node's object store of 1900 MB; lower",
        ),
        (
            {"decoders": 2, "num_workers": 2},
            [node(4), node(1)],
            r"needs 6 CPU, the cluster has 5 CPU on 2 nodes: does not fit, because 1 CPU for each "
            r"decode actor leaves room for 3 of 4 beside the others; lower data\.num_workers, or "
            r"set data\.reader local$",
        ),
        (
            {"decoders": 8, "use_gpu": True},
            [node(48, 1), node(4, decode=16), node(16, decode=2)],
            r"1 CPU for each decode actor leaves room for 6 of 8 on nodes with the resource decode",
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
        check_resources(run(**cluster), nodes, rollout_bytes=800 * 2**20)


AMOUNTS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0])


@given(
    nodes=st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=3),
    cluster=st.fixed_dictionaries(
        {
            "num_workers": st.integers(1, 2),
            "use_gpu": st.booleans(),
            "cpus_per_worker": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            "policy_gpus": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            "rollout_workers": st.integers(1, 3),
            "rollout_gpus": st.sampled_from([0.0, 0.5, 1.0]),
        }
    ),
)
def test_run_is_refused_exactly_where_no_assignment_of_its_actors_to_nodes_holds(
    nodes: list[tuple[float, float]], cluster: dict[str, Any]
) -> None:
    cpus = cluster["cpus_per_worker"]
    learner, maker = (cpus, float(cluster["use_gpu"])), (cpus, cluster["rollout_gpus"])
    actors = [learner] * cluster["num_workers"] + [maker] * cluster["rollout_workers"]
    actors.append((0.0, cluster["policy_gpus"]))

    def holds(places: tuple[int, ...]) -> bool:
        return all(
            sum(actor[kind] for actor, place in zip(actors, places, strict=True) if place == index)
            <= has[kind]
            for index, has in enumerate(nodes)
            for kind in (0, 1)
        )

    fits = any(map(holds, product(range(len(nodes)), repeat=len(actors))))
    with nullcontext() if fits else pytest.raises(UsageError, match=": does not fit, because "):
        check_resources(run(**cluster), [node(*has) for has in nodes])


def test_nodes_alike_are_accepted() -> None:
    check_reports(OWN, {"10.0.0.2 abc": replace(OWN, host="worker"), "10.0.0.1 def": OWN})


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, r"node 10\.0\.0\.2 abc did not answer within 60 s; remove it"),
        (
            replace(OWN, host="w", versions={**OWN.versions, "torch": "2.11.0"}),
            r"\(w\) has torch 2\.11\.0, the driver \(head\) has 2\.15\.0; install the same",
        ),
        (
            replace(OWN, host="w", versions={**OWN.versions, "Python": "3.12.1"}),
            r"\(w\) has Python 3\.12\.1, the driver",
        ),
        (replace(OWN, host="w", marker=None), r"\(w\) does not see the run folder .*checkpoint\.f"),
        (
            replace(OWN, host="w", marker="other"),
            r"\(w\) does not see the run folder of the driver",
        ),
    ],
)
def test_node_that_differs_is_refused_with_the_way_out(
    report: NodeFacts | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_reports(OWN, {"10.0.0.1 aaa": OWN, "10.0.0.2 abc": report})


def test_nodes_are_asked_for_the_run_folder_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were started in other folders than the driver, which may be given a relative one."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[Path] = []

    def ask(nodes: object, file: Path) -> dict[str, NodeFacts | None]:
        asked.append(file)
        return {}

    monkeypatch.setattr(preflight, "_ask", ask)
    check_nodes([], Path("runs"))
    assert [file.parent for file in asked] == [tmp_path / "runs"]


def test_way_out_of_missing_gpus_is_one_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "own_node", lambda: {"GPU": 0.0, "CPU": 8.0})
    for use_gpu, wanted in ((True, 2), (False, 1)):
        config = parse_config({"cluster": {"use_gpu": use_gpu, "policy_gpus": 1}})
        with pytest.raises(UsageError, match=f"needs {wanted} GPU") as refused:
            placement.plan_placement(config)
        both = "cluster.use_gpu false and " * use_gpu
        assert f"; set {both}cluster.policy_gpus 0, or join a cluster" in str(refused.value)
