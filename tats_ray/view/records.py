"""Queries on the recorded metrics of a run, as returned by `tracking.read_metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

BAD_VIDEOS_FILE = "bad_videos.csv"
"""In a run's folder: the videos that it could not read, with reasons."""
Record = Mapping[str, Any]
"""`step`, `epoch`, `time`, and the metrics that were measured then."""


def series(metrics: Sequence[Record], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, where it was measured and finite."""
    points = [(r["step"], r[name]) for r in metrics if r.get(name) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in points], [value for _, value in points]


def without_stub(metrics: Sequence[Record]) -> list[Record]:
    """Without a last training record of under half the steps of the one before: mostly noise.

    What was measured or counted then stays.
    """
    at = [index for index, record in enumerate(metrics) if "mae/loss" in record]
    kept = list(metrics)
    if len(at) > 2:
        before, previous, last = (metrics[index]["step"] for index in at[-3:])
        if 2 * (last - previous) < previous - before:
            stub = metrics[at[-1]]
            kept[at[-1]] = {
                name: stub[name]
                for name in stub
                if "/" not in name or name.startswith(("eval/", "data/replaced"))
            }
    return kept


def sampler_start(metrics: Sequence[Record]) -> int | None:
    """The last record without the policy before the first with it; None if it took no part."""
    previous = 0
    for record in metrics:
        if any(name.startswith("policy/") for name in record):
            return previous
        if "mae/loss" in record:
            previous = int(record["step"])
    return None
