"""How rollout workers are placed, told by a Ray that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tats_ray.config.load import parse_config
from tats_ray.runtime.actors import rollout_worker
from tats_ray.runtime.actors.rollout_worker import RolloutWorkers


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
    monkeypatch.setattr(rollout_worker, "ray", made_up)
    config = parse_config({"loop": {"source": "workers"}, "cluster": {"rollout_gpus": share}})
    RolloutWorkers(config, device="cpu", threads=1, buffer=None, store=None, log=None)
    assert [how["scheduling_strategy"] for how in asked] == [expected]
