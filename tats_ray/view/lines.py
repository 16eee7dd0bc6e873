"""A run as plain text: one aligned line per record, for logs and pipes."""

from __future__ import annotations

import sys
from io import TextIOBase

from tats_ray.core.words import counted, three
from tats_ray.view.progress import (
    BoardPlan,
    Event,
    Progress,
    View,
    format_duration,
    is_warning,
)

MIN_GAP_S = 2.0
"""Training lines are at least this far apart; measurements are always shown."""


class _Printer:
    """Writes whole lines, also when a signal handler prints in the middle of one."""

    def __init__(self, stream: TextIOBase | None) -> None:
        self._stream = stream
        self._waiting: list[str] = []
        self._is_busy = False

    def __call__(self, line: str) -> None:
        self._waiting.append(line)
        if self._is_busy:
            return  # Python refuses a print inside a print; the outer one takes this line along
        self._is_busy = True
        try:
            while self._waiting:
                print(self._waiting.pop(0), file=self._stream or sys.stdout, flush=True)
        finally:
            self._is_busy = False


class QuietView(View):
    """Shows notes and nothing else.

    Args:
        stream: default is whatever `sys.stdout` is at the time.
    """

    def __init__(self, stream: TextIOBase | None = None) -> None:
        self._print = _Printer(stream)

    def on_event(self, event: Event) -> None:
        if event["kind"] == "note":
            self._print(note_line(str(event["text"])))


class PlainView(View):
    """Shows a line per record, note and checkpoint.

    Args:
        stream: default is whatever `sys.stdout` is at the time.
    """

    def __init__(self, plan: BoardPlan, stream: TextIOBase | None = None) -> None:
        self._progress = Progress(plan)
        self._print = _Printer(stream)
        self._last_time: float | None = None
        self._told_data_bound = False
        self.is_closed = False

    def on_event(self, event: Event) -> None:
        self._progress.on_event(event)
        if event["kind"] == "start":
            self._last_time = None
            self._print(start_line(self._progress.plan, event))
        elif event["kind"] == "note":
            self._print(note_line(str(event["text"])))
        elif event["kind"] == "cache":
            self._print(note_line(f"a cache of the videos would take {event['text']}"))
        elif event["kind"] == "checkpoint":
            self._print(f"saved  step {event['step']}  {event['path']}")
        elif event["kind"] == "metrics":
            self._metrics(event)

    def _metrics(self, event: Event) -> None:
        names = event["metrics"]
        if any(name.startswith(("eval/", "val/")) for name in names):
            self._print(eval_line(self._progress))
        if self._progress.plan.loss_name in names and self._is_due(event):
            self._last_time = event["time"]
            self._print(step_line(self._progress))
        if self._progress.is_data_bound and not self._told_data_bound:
            self._told_data_bound = True
            self._print(note_line(self._progress.data_advice))

    def _is_due(self, event: Event) -> bool:
        if self._last_time is None or event["step"] >= self._progress.plan.total_steps:
            return True
        # The clock of a new machine may be behind.
        return bool(abs(event["time"] - self._last_time) >= MIN_GAP_S)

    def close(self, text: str = "") -> None:
        if not self.is_closed and text:
            self._print(text)
        self.is_closed = True


def start_line(plan: BoardPlan, event: Event) -> str:
    where = f"of {counted(plan.total_steps, 'step')}, {counted(plan.total_epochs, 'epoch')}"
    if event["is_resumed"]:
        return f"start  {plan.name}: RESUMED from step {event['step']} {where}"
    return f"start  {plan.name}: FRESH START {where}"


def note_line(text: str) -> str:
    return f"{'NOTE' if is_warning(text) else 'note'}   {text}"


def step_line(progress: Progress) -> str:
    """The means of the last training steps, the last measurements, and how fast it goes."""
    if progress.plan.task == "finetune":
        middle = [
            f"loss {_three(progress.latest('finetune/loss'))}",
            f"top-1 {_percent(progress.latest('finetune/top1'))}",
            f"validation {_percent(progress.latest('val/top1'))}",
        ]
    else:
        middle = [
            f"{progress.plan.phase(progress.step):<{progress.plan.phase_width}}",
            f"error {_three(progress.latest('mae/loss'))}",
            f"reward {_three(progress.latest('env/reward'))}",
            *_policy(progress),
        ]
    parts = [
        f"step  {_position(progress)}",
        *middle,
        f"{_three(progress.latest('data/clips_per_s')):>3} clips/s",
        _shares(progress),
        _eta(progress),
    ]
    return "  ".join(part for part in parts if part)


def eval_line(progress: Progress) -> str:
    """What was measured on the validation clips."""
    if progress.plan.task == "finetune":
        return f"eval  {_position(progress)}  top-1 {_percent(progress.latest('val/top1'))}"
    parts = [
        f"eval  {_position(progress)}",
        f"validation error {_three(progress.latest('eval/error'))}{_of_the_mean(progress)}",
        f"own masks {_three(progress.latest('eval/own_error'))}",
        *_policy(progress),
    ]
    in_play = progress.latest("eval/effective_tokens")
    if in_play is not None:
        parts.append(f"{in_play:.0f}/{progress.plan.num_tokens} tokens in use")
    return "  ".join(parts)


def _of_the_mean(progress: Progress) -> str:
    """The error as a multiple of that of predicting the mean, which compares across targets."""
    error, mean = progress.latest("eval/error"), progress.latest("eval/mean_error")
    return (
        f" ({three(error / mean)}x that of predicting the mean)"
        if error is not None and mean
        else ""
    )


def _position(progress: Progress) -> str:
    plan = progress.plan
    step, epoch = str(plan.total_steps), str(plan.total_epochs)
    return (
        f"{progress.step:>{len(step)}}/{step}  "
        f"epoch {plan.epoch(progress.step):>{len(epoch)}}/{epoch}"
    )


def _policy(progress: Progress) -> list[str]:
    """Left out until it is first measured: without a validation list it never is."""
    parts = []
    spread = progress.latest("eval/entropy", "policy/entropy")
    motion, auc = progress.latest("eval/motion_ratio"), progress.latest("eval/motion_auc")
    if spread is not None:
        parts.append(f"entropy {three(spread)}")
    if motion is not None:
        parts.append(f"motion {three(motion)}x")
    if auc is not None:
        parts.append(f"auc {three(auc)}")
    return parts


def _shares(progress: Progress) -> str:
    shares = {room: progress.latest(f"time/{room}") for room in progress.plan.rooms}
    parts = [f"{room} {share:>3.0%}" for room, share in shares.items() if share is not None]
    handover = progress.latest("time/handover")
    if handover is not None:
        parts.append(f"(hand-over {handover:.0%})")
    return " ".join(parts)


def _eta(progress: Progress) -> str:
    left = progress.eta_s
    if left is None:
        return ""
    return f"eta {format_duration(left)}{' at this rate' if progress.eta_is_optimistic else ''}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _three(value: float | None) -> str:
    return "-" if value is None else three(value)
