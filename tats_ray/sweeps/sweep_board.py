"""One line for every trial that begins or ends."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from tats_ray.config.points import Point, Trial
from tats_ray.core.words import counted, three
from tats_ray.sweeps.sweep_folder import Record, read_record, write_record
from tats_ray.view.progress import format_duration


def say(what: str, how_much: str) -> None:
    print(f"{what:>14}  {how_much}", flush=True)


def in_words(measures: dict[str, float]) -> str:
    parts = []
    if "train_error" in measures:
        parts.append(f"train error {three(measures['train_error'])}")
    if "val_error" in measures:
        parts.append(f"validation {three(measures['val_error'])}")
    if "knn" in measures:
        parts.append(f"kNN {measures['knn']:.1%}")
    return ", ".join(parts) or "nothing measured"


class SweepBoard:
    """Receives the outcome of trials, completes their records, and prints."""

    def __init__(self, experiment: Path, *, num_left: int, metric: str) -> None:
        self._trials = experiment / "trials"
        self._num_left, self._metric = num_left, metric
        self._num_ended = 0
        self._began = time.monotonic()

    def started(self, name: str) -> None:
        say("begins", name)

    def ended(self, name: str, error: str | None) -> None:
        """A trial that was stopped, or whose process died, could not write its own end."""
        self._num_ended += 1
        folder = self._trials / Trial(name, Point(name, {}), 0).folder
        record = read_record(folder)
        if record is not None and record.status == "running":
            record = self._completed(record, error)
            write_record(folder, record)
        if record is None:
            say("FAILED", f"{name}: {error or 'the trial left no record'}")
            return
        label, words = {
            "finished": ("finished", in_words(record.measures)),
            "stopped": ("stopped", f"{record.reason}; {in_words(record.measures)}"),
        }.get(record.status, ("FAILED", record.reason))
        took = format_duration(record.seconds.get("total", 0.0))
        say(label, f"{record.name}: {words}; {took}{self._left_in_words()}")

    def _completed(self, record: Record, error: str | None) -> Record:
        if error is not None:
            return replace(record, status="failed", reason=error)
        why = f"fell behind in {self._metric} after {counted(record.epochs, 'epoch')}"
        return replace(record, status="stopped", reason=why)

    def _left_in_words(self) -> str:
        left = self._num_left - self._num_ended
        if not left:
            return ""
        seconds = (time.monotonic() - self._began) / self._num_ended * left
        return f"; {left} left, about {format_duration(seconds)}"
