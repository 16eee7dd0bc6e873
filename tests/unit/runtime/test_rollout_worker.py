"""How rollout workers are placed, told by a Ray that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tats_ray.config.load import parse_config
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.driver import rollout_workers
from tats_ray.runtime.driver.rollout_workers import RolloutWorkers
from tats_ray.runtime.resources.placement import Placement
from tats_ray.runtime.resources.request import ResourceRequest


@pytest.mark.parametrize(("share", "expected"), [(0.0, "SPREAD"), (0.5, "DEFAULT")])
def test_workers_are_spread_over_nodes_unless_they_share_gpus(
    monkeypatch: pytest.MonkeyPatch, share: float, expected: str
) -> None:
    asked: list[dict[str, Any]] = []
    actor = SimpleNamespace(run=SimpleNamespace(remote=lambda *peers: object()))

    def options(**how: Any) -> Any:
        asked.append(how)
        return SimpleNamespace(remote=lambda *args, **more: actor)

    made_up = SimpleNamespace(remote=lambda kind: SimpleNamespace(options=options))
    monkeypatch.setattr(rollout_workers, "ray", made_up)
    config = parse_config({"loop": {"source": "workers"}, "cluster": {"rollout_gpus": share}})
    placement = Placement(ResourceRequest.of(config), 1, threads=1, learns_policy=True)
    RolloutWorkers(config, placement, Peers(log=None))
    assert [how["scheduling_strategy"] for how in asked] == [expected]
    assert [(how["num_cpus"], how["num_gpus"]) for how in asked] == [(1, share)]
