"""Progress of a run, computed from its events; the board and the plain lines show it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tats_ray.core.words import counted

Event = Mapping[str, Any]

DATA_BOUND_SHARE = 0.5
"""A run waits for its decoder when more than this share of the time goes to data."""

_COLD_STEPS = 100
"""Of the first epoch, at most, which is when most files are opened for the first time."""

# Enough for a steady rate, and few enough to follow a change within a minute or so.
_RATE_POINTS = 30


class View:
    """Something that shows a run while it runs; this one shows nothing."""

    is_closed = False

    def on_event(self, event: Event) -> None:
        """Take in what a learner told. May be called from a signal handler."""

    def on_tick(self) -> None:
        """Time has passed; called about twice a second."""

    def close(self, text: str = "") -> None:
        """Show `text` last, and let go of the terminal. The second call does nothing."""

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardPlan:
    """The sizes of a run, known before it starts."""

    name: str
    total_steps: int
    total_epochs: int
    steps_per_epoch: int
    mae_only_epochs: int
    num_tokens: int
    num_visible: int
    mae_only_masks: str = "uniform masks"
    """Masks of the MAE-only epochs, in words."""
    sampler_learns: bool = True
    """False where the masks are fixed for the whole run: random or tube."""
    task: Literal["pretrain", "finetune"] = "pretrain"
    loaders: int | None = None
    """Loader processes of each learner; None where that is not known."""
    loader: Literal["loader process", "decode actor"] = "loader process"
    """What each of them is."""

    @property
    def loss_name(self) -> str:
        """The metric that every training record has."""
        return "finetune/loss" if self.task == "finetune" else "mae/loss"

    @property
    def rooms(self) -> tuple[str, ...]:
        """Where time goes, as in `time/ROOM`."""
        return ("data", "network") if self.task == "finetune" else ("data", "mae", "policy")

    @property
    def mae_only_steps(self) -> int:
        """Steps before the sampler takes part."""
        return min(self.mae_only_epochs * self.steps_per_epoch, self.total_steps)

    def is_mae_only(self, step: int) -> bool:
        """Whether a record at `step`, which tells about the steps up to it, is of that phase."""
        return step <= self.mae_only_steps or not self.sampler_learns

    def is_cold(self, step: int) -> bool:
        """Whether many files are opened for the first time in the steps up to this one."""
        return step <= min(self.steps_per_epoch, _COLD_STEPS)

    def phase(self, step: int) -> str:
        if self.task == "finetune":
            return "fine-tuning"
        return "MAE only" if self.is_mae_only(step) else "MAE + sampler"

    @property
    def phase_width(self) -> int:
        """Characters that the phases of this run need, so that lines are aligned."""
        return max(len(self.phase(1)), len(self.phase(self.total_steps)))

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to, counted from 1."""
        return min(-(-step // max(self.steps_per_epoch, 1)), self.total_epochs)


class CurvePoint(NamedTuple):
    """One value of one metric."""

    step: int
    value: float


class Progress:
    """The latest of everything, the history of what is drawn, and the rate of steps.

    Args:
        clock: seconds; tells how long ago the last event came.
    """

    def __init__(self, plan: BoardPlan, *, clock: Callable[[], float] = time.time) -> None:
        self.plan = plan
        self.step = 0
        self.is_resumed: bool | None = None
        """None before the learners have started."""
        self.history: dict[str, list[CurvePoint]] = {}
        self.cache_estimate = ""
        """What a cache of the videos would take, in words; empty before that was worked out."""
        self.last_checkpoint: str | None = None
        self.checkpoint_step = 0
        # Replaced, never mutated: a signal handler may add a note while they are being drawn.
        self.notes: tuple[str, ...] = ()
        self._clock = clock
        self._began = clock()
        self._arrived = clock()
        self._times: list[tuple[float, int]] = []

    def on_event(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "start":
            self._start(event)
        elif kind == "metrics":
            self._metrics(event)
        elif kind == "note":
            self.notes = (*self.notes, str(event["text"]))
        elif kind == "cache":
            self.cache_estimate = str(event["text"])
        elif kind == "checkpoint":
            self.last_checkpoint = str(event["path"])
            self.checkpoint_step = int(event["step"])

    def _start(self, event: Event) -> None:
        self.step = int(event["step"])
        self.is_resumed = bool(event["is_resumed"])
        self._arrived = self._clock()
        # The steps after the checkpoint are done again.
        self.history = {
            name: [point for point in points if point.step <= self.step]
            for name, points in self.history.items()
        }
        self._times = [(float(event["time"]), self.step)]

    def _metrics(self, event: Event) -> None:
        step, now = int(event["step"]), float(event["time"])
        if self.plan.is_mae_only(step) != self.plan.is_mae_only(self.step):
            # Steps take longer once the sampler takes part: count from the last one before.
            self._times = self._times[-1:]
        self.step = step
        self._arrived = self._clock()
        self._times = [*self._times, (now, step)][-_RATE_POINTS:]
        for name, value in event["metrics"].items():
            if value is not None and math.isfinite(value):
                self.history.setdefault(name, []).append(CurvePoint(step, float(value)))

    def latest(self, *names: str) -> float | None:
        """The newest value of the first of `names` that was ever measured."""
        for name in names:
            if self.history.get(name):
                return self.history[name][-1].value
        return None

    def first(self, name: str) -> float | None:
        points = self.history.get(name)
        return points[0].value if points else None

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._began

    @property
    def silent_s(self) -> float:
        """Seconds since the learners last told anything about their steps."""
        return self._clock() - self._arrived

    @property
    def steps_per_s(self) -> float | None:
        """Over the last records of the present phase; None before there are two."""
        if len(self._times) < 2:
            return None
        (first_time, first_step), (last_time, last_step) = self._times[0], self._times[-1]
        if last_step <= first_step or last_time <= first_time:
            return None
        return (last_step - first_step) / (last_time - first_time)

    @property
    def eta_s(self) -> float | None:
        """Seconds that the steps left would take from the last record on, at the recent rate."""
        rate = self.steps_per_s
        return None if rate is None else (self.plan.total_steps - self.step) / rate

    @property
    def eta_is_optimistic(self) -> bool:
        """Whether slower steps are still to come."""
        return self.plan.is_mae_only(self.step) and (
            self.plan.sampler_learns and self.plan.mae_only_steps < self.plan.total_steps
        )

    @property
    def is_data_bound(self) -> bool:
        """Whether the last two records say so; the first steps pay for opening files and caches."""
        return len(shares := self._data_shares) == 2 and min(shares) > DATA_BOUND_SHARE

    @property
    def _data_shares(self) -> list[float]:
        points = self.history.get("time/data", [])
        return [point.value for point in points if not self.plan.is_cold(point.step)][-2:]

    @property
    def data_advice(self) -> str:
        """How long a run waits for clips, and what would help; for one that is bound by data.

        Waiting for a share w of the time, n loader processes give 1 - w of the clips that the
        learner could take, so n / (1 - w) of them would give all. Without any, the learner decodes
        for w of the time, as w / (1 - w) processes would do meanwhile.
        """
        share = min(sum(self._data_shares) / len(self._data_shares), 0.99)
        now = self.plan.loaders
        more = f"more {counted(2, self.plan.loader).removeprefix('2 ')} (data.num_workers)"
        if now is not None:
            missing = math.ceil((now or 1) * share / (1.0 - share))
            more = f"{counted(missing, self.plan.loader)} (data.num_workers {now + missing})"
        cache = f": {self.cache_estimate}" if self.cache_estimate else " (tats data cache)"
        waits = f"{share:.0%} of the time is spent waiting for clips"
        return f"{waits}: add {more}, or make a cache{cache}"


class VideoCount:
    """Videos done, on standard error; where that is a file, a line every ten seconds."""

    def __init__(self) -> None:
        self.done = 0
        self._began = self._told = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        self.done, now, is_seen = done, time.monotonic(), sys.stderr.isatty()
        self._first = done if self._first is None else self._first
        is_due = done == total or now >= self._told + (1 if is_seen else 10)
        if not is_due or done == self._first:
            return
        self._told = now
        text = f"{done} of {counted(total, 'video')}"
        share = (done - self._first) / max(total - self._first, 1)
        if done < total and share > 0.1:  # the first ones say little: they come in bursts
            text += f", {format_duration((now - self._began) * (1 / share - 1))} left"
        end = "\n" if done == total or not is_seen else "\r"
        print(f"{text:<50}" if is_seen else text, end=end, file=sys.stderr, flush=True)


def is_warning(note: str) -> bool:
    """Whether a note tells of a collapse or a failure, which deserve colour."""
    return any(word in note.lower() for word in ("collaps", "fail", "could not", "not finite"))


def format_duration(seconds: float) -> str:
    """The two largest units: 45s, 2m10s, 3h05m, 2d04h."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
