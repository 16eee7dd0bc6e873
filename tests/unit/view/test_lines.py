from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Iterable
from typing import Any

from scripted import note, record, start

from tats_ray.view.lines import PlainView, QuietView
from tats_ray.view.progress import BoardPlan, format_duration

Script = Callable[..., list[dict[str, Any]]]


def _lines(plan: BoardPlan, events: Iterable[dict[str, Any]], last: str = "") -> list[str]:
    out = io.StringIO()
    with PlainView(plan, out) as view:
        for event in events:
            view.on_event(event)
        view.on_tick()
        view.close(last)
    return out.getvalue().splitlines()


def test_lines_of_a_run_say_where_it_stands(plan: BoardPlan, script: Script) -> None:
    lines = _lines(plan, script(until=42))
    assert lines[:4] == [
        "start  demo: FRESH START of 60 steps, 10 epochs",
        "step   6/60  epoch  1/10  MAE only       error 0.940  reward 0.840  312 clips/s  "
        "data  8% mae 80% policy 12%  eta 27s at this rate",
        "step  12/60  epoch  2/10  MAE only       error 0.880  reward 0.780  312 clips/s  "
        "data  8% mae 80% policy 12%  eta 24s at this rate",
        "eval  12/60  epoch  2/10  validation error 0.900  own masks 0.880  entropy 0.990  "
        "motion 1.02x  auc 0.500  240/256 tokens in use",
    ]
    assert lines[-1] == (
        "step  42/60  epoch  7/10  MAE + sampler  error 0.580  reward 0.480  entropy 0.880  "
        "motion 1.80x  auc 0.750  312 clips/s  data  8% mae 80% policy 12% (hand-over 2%)  "
        "eta 18s"
    )


def test_missing_metrics_are_shown_as_missing(plan: BoardPlan) -> None:
    events = [start(), record(6, 101.0, mae__loss=math.nan)]
    assert _lines(plan, events)[1] == (
        "step   6/60  epoch  1/10  MAE only       error -  reward -    - clips/s"
        "  eta 9s at this rate"
    )


def test_training_lines_come_at_most_every_two_seconds_and_measurements_always(
    plan: BoardPlan,
) -> None:
    events = [start(time=0.0)]
    for step in range(1, 61):
        events.append(record(step, step * 0.1, mae__loss=1.0))
        if step % 10 == 0:
            events.append(record(step, step * 0.1, eval__error=1.0))
    kinds = [line.split()[0] for line in _lines(plan, events)]
    assert kinds.count("eval") == 6
    assert kinds.count("step") == 4  # at 0.1, 2.1, 4.1 s, and the last step


def test_notes_checkpoints_and_last_words_have_lines_of_their_own(plan: BoardPlan) -> None:
    events = [
        start(30, is_resumed=True),
        note("the policy looks collapsed: entropy is 0.31 of log N"),
        note("stopping: a checkpoint is saved at the next log step"),
        {"kind": "checkpoint", "time": 0.0, "step": 36, "path": "runs/demo/step_36"},
    ]
    assert _lines(plan, events, "stopped after step 36") == [
        "start  demo: RESUMED from step 30 of 60 steps, 10 epochs",
        "NOTE   the policy looks collapsed: entropy is 0.31 of log N",
        "note   stopping: a checkpoint is saved at the next log step",
        "saved  step 36  runs/demo/step_36",
        "stopped after step 36",
    ]


def test_advice_for_a_decoder_bound_run_is_given_once(plan: BoardPlan, script: Script) -> None:
    lines = _lines(plan, script(data=0.6))
    assert sum("of the time is spent waiting for clips" in line for line in lines) == 1


def test_fixed_masks_are_never_called_a_sampler(plan: BoardPlan, script: Script) -> None:
    lines = _lines(dataclasses.replace(plan, sampler_learns=False), script())
    assert not any("sampler" in line or "at this rate" in line for line in lines)


def test_note_from_a_signal_handler_in_the_middle_of_a_print_is_not_lost(plan: BoardPlan) -> None:
    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if "saved" in text:
                view.on_event(note("stopping"))
            return super().write(text)

    out = Interrupted()
    view = PlainView(plan, out)
    view.on_event({"kind": "checkpoint", "time": 0.0, "step": 6, "path": "p"})
    assert out.getvalue().splitlines() == ["saved  step 6  p", "note   stopping"]


def test_quiet_view_shows_notes_and_nothing_else(script: Script) -> None:
    out = io.StringIO()
    with QuietView(out) as view:
        for event in [*script(), note("look at me")]:
            view.on_event(event)
        view.close("done")
    assert out.getvalue() == "note   look at me\n"


def test_durations_have_two_units() -> None:
    shown = [format_duration(seconds) for seconds in (-1, 45.4, 130, 3600 * 3 + 301, 86400 * 2.5)]
    assert shown == ["0s", "45s", "2m10s", "3h05m", "2d12h"]


def test_lines_of_fine_tuning_show_loss_and_accuracy(plan: BoardPlan) -> None:
    plan = dataclasses.replace(plan, task="finetune", mae_only_epochs=0, sampler_learns=False)
    events = [
        start(),
        record(6, 103.0, finetune__loss=2.0, finetune__top1=0.25, data__clips_per_s=40.0,
               time__data=0.1, time__network=0.9),
        record(12, 106.5, val__top1=0.5),
        record(12, 107.0, finetune__loss=1.5, finetune__top1=0.375, data__clips_per_s=41.0,
               time__data=0.1, time__network=0.9),
    ]  # fmt: skip
    assert _lines(plan, events) == [
        "start  demo: FRESH START of 60 steps, 10 epochs",
        "step   6/60  epoch  1/10  loss 2.00  top-1 25.0%  validation -  40.0 clips/s  "
        "data 10% network 90%  eta 27s",
        "eval  12/60  epoch  2/10  top-1 50.0%",
        "step  12/60  epoch  2/10  loss 1.50  top-1 37.5%  validation 50.0%  41.0 clips/s  "
        "data 10% network 90%  eta 28s",
    ]
