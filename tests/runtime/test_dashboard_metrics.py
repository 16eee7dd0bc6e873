"""What a run tells Ray's metrics agent, read as Prometheus reads it."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import ray

from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tests.marks import IN_CLUSTER
from tests.runtime.test_recipe import small_config

pytestmark = [*IN_CLUSTER, pytest.mark.long, pytest.mark.timeout(300)]


def scraped(names: set[str], run: str, deadline_s: float) -> dict[str, float]:
    """Gauges of a run at the endpoint of this node's agent, once all `names` are there."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    line = re.compile(rf'^ray_(tats_\w+)\{{[^}}]*\brun="{run}"[^}}]*\}} (\S+)$', re.MULTILINE)
    found: dict[str, float] = {}
    end = time.monotonic() + deadline_s
    while time.monotonic() < end and not names <= found.keys():
        time.sleep(0.5)
        with urllib.request.urlopen(url, timeout=10) as page:
            found = {name: float(value) for name, value in line.findall(page.read().decode())}
    return found


def test_agent_offers_prometheus_what_the_run_recorded(
    videos: SyntheticSet, run_folder: Path
) -> None:
    """Some 15 s: Ray sends to its agents every 10 s."""
    config = small_config(videos, run_folder)
    events: list[Any] = []
    launch.run(config, run_folder, make_plan(config).placement, on_event=events.append)
    records = [event for event in events if event["kind"] == "metrics"]
    last = {name: value for record in records for name, value in record["metrics"].items()}
    expected = {
        "tats_step": records[-1]["step"],
        "tats_restarts": 0,
        "tats_clips_per_s": last["data/clips_per_s"],
        "tats_policy_staleness": last["policy/staleness"],
        "tats_time_wait": last["time/wait"],
        "tats_wait_policy": last["wait/policy"],
        "tats_buffer_bytes": last["buffer/bytes"],
    }
    assert scraped(set(expected), config.name, 60.0) == pytest.approx(expected)
