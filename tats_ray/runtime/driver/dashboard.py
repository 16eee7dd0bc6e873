"""A run's metrics on Ray's dashboard: gauges that its metrics agents offer to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Gauge

from tats_ray.runtime.driver.watch import Event

SHOWN: Mapping[str, str] = {
    "data/clips_per_s": "tats_clips_per_s",
    "policy/staleness": "tats_policy_staleness",
    "time/wait": "tats_time_wait",
    "wait/policy": "tats_wait_policy",
    "wait/workers": "tats_wait_workers",
    "buffer/bytes": "tats_buffer_bytes",
}
"""Metric of a run [docs/metrics.md] -> gauge, which Prometheus gets as `ray_...`."""
STEP, RESTARTS = "tats_step", "tats_restarts"
GAUGES = (*SHOWN.values(), STEP, RESTARTS)


class DashboardGauges:
    """Sets gauges from the events that the driver reads anyway, and passes these on.

    A gauge is a number in this process, which Ray sends to the agent of its node in the background.
    Whatever goes wrong over it costs the gauges and a note, and never the run.

    Args:
        run: name of the run, the tag of all its gauges.
        on_event: gets every event first.
    """

    def __init__(self, run: str, on_event: Callable[[Event], None]) -> None:
        self._run, self._on_event = run, on_event
        self._gauges: dict[str, Gauge] = {}
        self._num_starts = 0
        self._is_given_up = False

    def __call__(self, event: Event) -> None:
        self._on_event(event)
        if self._is_given_up or event["kind"] not in ("start", "metrics"):
            return
        try:
            for name, value in self._values(event).items():
                self._gauge(name).set(value)
        except Exception as error:  # whatever Ray raises is not worth a run
            self._is_given_up = True
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            text = f"Ray's dashboard gets no metrics of this run: {reason}; metrics.jsonl has all"
            self._on_event({"kind": "note", "text": text, "time": event["time"]})

    def _values(self, event: Event) -> dict[str, float]:
        if event["kind"] == "start":
            self._num_starts += 1
            return {RESTARTS: self._num_starts - 1, STEP: event["step"]}
        metrics: Mapping[str, Any] = event["metrics"]
        measured = {SHOWN[name]: metrics[name] for name in SHOWN if metrics.get(name) is not None}
        return {STEP: event["step"], **measured}

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, "tats_ray: see docs/metrics.md", ("run",))
            self._gauges[name].set_default_tags({"run": self._run})
        return self._gauges[name]
