"""A run's metrics on disk: one JSON line per record, and the same scalars for TensorBoard."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tats_ray.core.storage import persist, replace_text
from tats_ray.core.words import first_few, reasons_csv
from tats_ray.view.progress import Event
from tats_ray.view.records import BAD_VIDEOS_FILE

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
"""Starts, notes and checkpoints, as they came."""
TENSORBOARD_FOLDER = "tensorboard"
_POSITION = ("step", "epoch", "time")


class RunFiles:
    """Owns `metrics.jsonl`, `events.jsonl`, `tensorboard/` and `bad_videos.csv`; their one writer.

    A start rewinds the metrics to its step, so that the steps that are done again after a failure
    or a resumption are there once.

    Args:
        retry_s: how long the storage may refuse a record. TensorBoard's copy is given up sooner.
        on_note: gets a line when the storage refuses.
        has_tensorboard: whether TensorBoard gets a copy.
    """

    def __init__(
        self,
        run: Path,
        *,
        retry_s: float = 0.0,
        on_note: Callable[[str], None] = lambda text: None,
        has_tensorboard: bool = True,
    ) -> None:
        self._retry_s = retry_s
        self._has_tensorboard = has_tensorboard
        self._on_note = on_note
        self._path = run / METRICS_FILE
        self._folder = run / TENSORBOARD_FOLDER
        run.mkdir(parents=True, exist_ok=True)
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._run = run
        self._bad = read_bad_videos(run)
        self._end_line()

    def on_event(self, event: Event) -> None:
        if event["kind"] == "start":
            self._rewind(int(event["step"]))
        elif event["kind"] == "metrics":
            self._record(event)
        elif event["kind"] == "unreadable":
            self._name(event["videos"])
        if event["kind"] in ("start", "note", "checkpoint"):
            with suppress(OSError), (self._run / EVENTS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(event)) + "\n")  # for those who watch; not worth the run

    def _name(self, videos: Mapping[str, str]) -> None:
        """Add videos to the list of those that cannot be read, and say so the first time."""
        new = {path: why for path, why in videos.items() if path not in self._bad}
        if not new:
            return
        path, is_first = self._run / BAD_VIDEOS_FILE, not self._bad
        self._bad |= new
        self._persist(lambda: replace_text(path, reasons_csv(self._bad)), BAD_VIDEOS_FILE)
        if is_first:
            self._on_note(f"videos that could not be read: {first_few(new)}; {path} names them all")

    def _rewind(self, step: int) -> None:
        """Drop what lies after `step`, and a line that was cut off."""
        lines, kept = _lines(self._path), []
        for line in lines:
            record = _parse(line)
            if record is not None and record["step"] <= step:
                kept.append(line + "\n")
        if self._path.exists():
            self._persist(lambda: replace_text(self._path, "".join(kept)))
        self._close_writer()
        has_events = self._folder.is_dir() and any(self._folder.iterdir())
        self._purge_step = step + 1 if has_events else None

    def _record(self, event: Event) -> None:
        metrics = {name: float(value) for name, value in event["metrics"].items()}
        record = {name: event[name] for name in _POSITION}
        # JSON has no NaN: Python would write one that other readers refuse.
        record |= {name: v if math.isfinite(v) else None for name, v in metrics.items()}
        line = json.dumps(record, allow_nan=False) + "\n"
        self._persist(lambda: self._append(line))
        if not self._has_tensorboard:
            return
        try:
            self._writer = self._writer or self._open_writer()
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, int(event["step"]), walltime=event["time"])
        except OSError as error:
            # A copy of what metrics.jsonl has: not worth the run. The next record tries again.
            self._writer = None
            self._on_note(f"a record for TensorBoard could not be written: {error}")

    def _append(self, line: str) -> None:
        """A whole line or none: a full disk takes half of one."""
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            if self._path.exists():
                os.truncate(self._path, size)
            raise

    def _persist(self, write: Callable[[], None], file: str = METRICS_FILE) -> None:
        what = f"{file} of the run"
        persist(write, what=what, retry_s=self._retry_s, on_note=self._on_note)

    def _end_line(self) -> None:
        """A process that was killed may have left half a line, which must stay a line alone."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with self._path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def _open_writer(self) -> SummaryWriter:
        purge_step, self._purge_step = self._purge_step, None
        return SummaryWriter(str(self._folder), purge_step=purge_step, flush_secs=10)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._on_note(f"records for TensorBoard could not be written: {error}")

    def close(self) -> None:
        self._close_writer()

    def __enter__(self) -> RunFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The records of a run, oldest first; NaN where a value was not finite.

    Lines that were cut off when a process was killed are left out; so is a missing file.
    """
    records = (_parse(line) for line in _lines(run / METRICS_FILE))
    return [
        {name: math.nan if value is None else value for name, value in record.items()}
        for record in records
        if record is not None
    ]


def read_events(run: Path) -> list[Event]:
    """All that a run told, oldest first, as its own view saw it."""
    found: list[Event] = [
        {
            "kind": "metrics",
            **{name: record[name] for name in _POSITION},
            "metrics": {name: value for name, value in record.items() if name not in _POSITION},
        }
        for record in read_metrics(run)
    ]
    others = (_parse(line, needs="kind") for line in _lines(run / EVENTS_FILE))
    found += [event for event in others if event is not None]
    return sorted(found, key=lambda event: float(event["time"]))


def read_bad_videos(run: Path) -> dict[str, str]:
    """The videos that a run could not read, with reasons, oldest first."""
    path = run / BAD_VIDEOS_FILE
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and row[0] != "path"}


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    # A cut may fall inside a character.
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _parse(line: str, needs: str = "step") -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and needs in record else None
