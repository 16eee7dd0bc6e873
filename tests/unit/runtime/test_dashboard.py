"""Gauges for Ray's dashboard: what they are set to, what they cost, and what they never do."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tats_ray.runtime.driver import dashboard
from tats_ray.runtime.driver.dashboard import GAUGES, SHOWN, DashboardGauges

ROOT = Path(__file__).parents[3]


def metrics(step: int, **values: float | None) -> dict[str, Any]:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return {"kind": "metrics", "step": step, "time": 1.0, "metrics": named}


def test_whatever_ray_raises_costs_the_gauges_and_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(*args: object) -> None:
        calls.append(args)
        raise RuntimeError("no metrics agent\non this node")

    monkeypatch.setattr(dashboard, "Gauge", broken)
    heard: list[Any] = []
    gauges = DashboardGauges("run", heard.append)
    events = [metrics(10, data__clips_per_s=1.0), metrics(20, data__clips_per_s=2.0)]
    for event in events:
        gauges(event)
    text = "Ray's dashboard gets no metrics of this run: no metrics agent; metrics.jsonl has all"
    assert heard == [events[0], {"kind": "note", "text": text, "time": 1.0}, events[1]]
    assert len(calls) == 1


def test_panel_of_grafana_shows_every_gauge_and_no_other() -> None:
    board = json.loads((ROOT / "docs" / "grafana_tats_ray.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    names = [re.fullmatch(r'ray_(\w+)\{run=~"\$run"\}', expr) for expr in asked]
    assert sorted(name[1] for name in names if name) == sorted(GAUGES)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_gauges_cost_a_record_far_less_than_a_hundredth_of_a_fast_step() -> None:
    """Real gauges, outside a cluster. A step of the smallest model takes 10 ms."""
    gauges = DashboardGauges("cost", lambda event: None)
    record = metrics(1, **{name.replace("/", "__"): 1.0 for name in SHOWN})
    gauges(record)
    rounds = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(10):
            gauges(record)
        rounds.append((time.perf_counter() - start) / 10)
    assert min(rounds) < 1e-4 * 10  # log.every_steps of them share a record
