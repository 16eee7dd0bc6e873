"""Events as the learners send them."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]


def start(step: int = 0, time: float = 100.0, *, is_resumed: bool = False) -> Event:
    return {"kind": "start", "time": time, "step": step, "is_resumed": is_resumed}


def record(step: int, time: float, **metrics: float) -> Event:
    """Metric names are written with two underscores for the slash."""
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {
        "kind": "metrics",
        "time": time,
        "step": step,
        "epoch": (step - 1) // 6,
        "metrics": named,
    }


def note(text: str) -> Event:
    return {"kind": "note", "time": 0.0, "text": text}
