"""What `tats cluster doctor` asks of a node, on the one node that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tats_ray.config.load import parse_config
from tats_ray.core.errors import UsageError
from tats_ray.runtime.cluster.network import all_reduce_speed
from tats_ray.runtime.cluster.nodes import look_at_nodes
from tats_ray.runtime.resources.capacity import (
    ensure_room,
    has_node_types,
)
from tats_ray.runtime.resources.placement import threads_of, usable_cores
from tats_ray.runtime.resources.preflight import check_cluster
from tats_ray.runtime.resources.request import ResourceRequest
from tests.marks import IN_CLUSTER

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


def test_node_reports_its_versions_its_speed_and_its_storage(tmp_path: Path) -> None:
    (told,) = look_at_nodes(str(tmp_path))
    assert told.error == ""
    assert told.versions["ray"] == ray.__version__
    assert told.storage == "ok"
    assert told.clips_per_s > 0
    assert list(tmp_path.iterdir()) == []
    (told,) = look_at_nodes(str(tmp_path / "missing"))
    assert told.storage.startswith("No such file or directory")
    node = told.node_id
    assert all_reduce_speed([node, node], use_gpu=False, seconds=0.1) > 0


def test_cluster_that_cannot_grow_is_not_waited_for_and_refuses(tmp_path: Path) -> None:
    assert not has_node_types()
    said: list[str] = []
    for asked, short in (
        ({"num_workers": 2, "cpus_per_worker": 1}, None),
        ({"num_workers": 3, "cpus_per_worker": 1}, "needs 3 CPU, the cluster has 2 CPU"),
        ({"policy_gpus": 0.5}, r"needs 0\.5 GPU \+ 1 CPU, the cluster has 2 CPU"),
    ):
        request = ResourceRequest.of(parse_config({"cluster": asked}))
        ensure_room(request, 1.0, said.append)
        if short is None:
            check_cluster(request, tmp_path)
        else:
            with pytest.raises(UsageError, match=short):
                check_cluster(request, tmp_path)
    assert said == []


def test_threads_are_the_nodes_own_unless_they_are_asked_for() -> None:
    assert threads_of(0, 1) == usable_cores()
    assert threads_of(0, 10_000) == 1
    assert threads_of(3, 10_000) == 3
