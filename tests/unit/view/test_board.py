from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from scripted import note, record, start

from tats_ray.view.board import BoardView, bar, draw_board, make_view, sparkline
from tats_ray.view.lines import PlainView, QuietView
from tats_ray.view.progress import BoardPlan, Progress

Script = Callable[..., list[dict[str, Any]]]


def _progress(plan: BoardPlan, events: Iterable[dict[str, Any]]) -> Progress:
    now = [100.0]
    progress = Progress(plan, clock=lambda: now[0])
    for event in events:
        now[0] = max(now[0], event.get("time", 0.0))
        progress.on_event(event)
    return progress


def _text(progress: Progress, width: int = 100, *, is_unicode: bool = True) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(draw_board(progress, width=width, is_unicode=is_unicode))
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    return text


def _row(text: str, name: str) -> str:
    (row,) = [line for line in text.splitlines() if name in line]
    return " ".join(row.split())


def test_board_shows_the_figures_of_the_mae_only_phase(plan: BoardPlan, script: Script) -> None:
    text = _text(_progress(plan, script(until=24)))
    assert "MAE only (uniform masks)" in text
    assert "epoch 4/10 step 24/60" in _row(text, "epoch 4")
    assert "40%" in text
    assert "about 19s left at this rate; slower from epoch 6, " in text
    assert "0.940 -> 0.760" in _row(text, "reconstruction")
    assert "0.900 -> 0.800" in _row(text, "validation")
    assert "1.02x chance" in _row(text, "visible motion")
    assert "312 clips/s" in _row(text, "speed")
    assert "80%" in _row(text, "time in MAE")
    assert "hand-over" not in text  # before the sampler takes part
    assert "2%" in _row(_text(_progress(plan, script(until=42))), "hand-over")
    assert "waiting for clips" not in text


def test_board_measures_the_rate_anew_when_the_sampler_joins(
    plan: BoardPlan, script: Script
) -> None:
    text = _text(_progress(plan, script(until=42)))
    assert "MAE + sampler" in text
    assert "about 18s left " in text  # 18 steps at 1 step a second, not at the former 2
    assert "at this rate" not in text


def test_board_says_what_it_waits_for(plan: BoardPlan, script: Script) -> None:
    text = _text(_progress(plan, script(data=0.6)))
    assert "60% of the time is spent waiting for clips: add more loader processes" in text


@pytest.mark.parametrize(("now", "missing"), [(0, 2), (1, 2), (4, 6), (10, 15)])
def test_board_says_what_would_help(
    plan: BoardPlan, script: Script, now: int, missing: int
) -> None:
    """At 60 % of waiting, n processes give 40 % of what is needed, which is n x 6 / 4 too few."""
    progress = _progress(replace(plan, loaders=now), script(data=0.6))
    total = f"add {missing} loader processes (data.num_workers {now + missing}), or make a cache"
    assert progress.data_advice.endswith(f"{total} (tats data cache)")
    progress.on_event({"kind": "cache", "text": "9.2 GB, 11m00s with 16 processes", "time": 0.0})
    assert progress.data_advice.endswith(f"{total}: 9.2 GB, 11m00s with 16 processes")
    assert "make a cache: 9.2 GB" in " ".join(_text(progress).split())
    by_actors = replace(plan, loaders=now, loader="decode actor")
    assert f"add {missing} decode actors" in _progress(by_actors, script(data=0.6)).data_advice


def test_the_first_epoch_opens_files_and_is_not_called_decoder_bound(
    plan: BoardPlan, script: Script
) -> None:
    long_epochs = replace(plan, steps_per_epoch=60, total_epochs=1)
    assert "decoder-bound" not in _text(_progress(long_epochs, script(data=0.6)))


def test_board_shows_the_last_four_notes_and_the_last_checkpoint(plan: BoardPlan) -> None:
    saved = [
        {"kind": "checkpoint", "time": 0.0, "step": step, "path": f"runs/demo/s{step}"}
        for step in (6, 12)
    ]
    text = _text(_progress(plan, [start(), *saved, *(note(f"note {n}!") for n in range(6))]))
    assert [f"note {n}!" in text for n in range(6)] == [False, False, True, True, True, True]
    assert "step 12, runs/demo/s12" in text
    assert "runs/demo/s6" not in text


def test_notes_of_a_collapse_are_yellow_and_others_are_not(plan: BoardPlan) -> None:
    notes = [note("the policy looks collapsed: why"), note("[bold]all[/bold] is well")]
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(draw_board(_progress(plan, [start(), *notes]), width=100))
    styled = console.export_text(styles=True)
    collapsed, well = (line for line in styled.splitlines() if "note  " in line)
    assert "\x1b[33m" in collapsed
    assert "\x1b[33m" not in well
    assert "[bold]all[/bold]" in well  # a note is text, never markup


@pytest.mark.parametrize("width", [40, 60, 80, 100, 108])
@pytest.mark.parametrize("until", [0, 6, 60])
def test_board_fits_any_width_at_any_time(
    plan: BoardPlan, script: Script, width: int, until: int
) -> None:
    assert "reconstruction" in _text(_progress(plan, script(until=until)), width)


def test_board_renders_before_anything_is_known(plan: BoardPlan) -> None:
    text = _text(_progress(plan, []))
    assert "starting" in text
    assert _row(text, "validation").split()[2] == "-"


def test_board_renders_with_missing_metrics(plan: BoardPlan) -> None:
    events = [start(), record(6, 103.0, mae__loss=float("nan")), record(6, 103.0, eval__error=0.9)]
    text = _text(_progress(plan, events))
    assert "visible motion" not in text  # these videos do not know theirs
    assert _row(text, "reconstruction").split()[2] == "-"


def test_board_is_ascii_where_the_terminal_is(plan: BoardPlan, script: Script) -> None:
    panel = draw_board(_progress(plan, script()), width=100, is_unicode=False)
    inner = Console(record=True, width=100, file=io.StringIO())
    inner.print(panel.renderable)
    assert inner.export_text().isascii()


def test_restart_forgets_the_steps_that_are_done_again(plan: BoardPlan, script: Script) -> None:
    progress = _progress(plan, [*script(), start(30, 200.0, is_resumed=True)])
    assert progress.step == 30
    assert progress.latest("mae/loss") == pytest.approx(0.7)
    assert "policy/entropy" not in {name for name, points in progress.history.items() if points}
    assert "RESUMED" in _text(progress)


def test_long_silence_is_said(plan: BoardPlan) -> None:
    now = [100.0]
    progress = Progress(plan, clock=lambda: now[0])
    for event in (start(), record(6, 103.0, mae__loss=1.0)):
        progress.on_event(event)
    now[0] = 175.0
    assert "no news from the learners for 1m15s" in _text(progress)


def test_live_board_draws_ticks_and_closes_once(plan: BoardPlan, script: Script) -> None:
    out = io.StringIO()
    console = Console(width=100, file=out, force_terminal=True)
    with BoardView(plan, console=console) as view:
        for event in script():
            view.on_event(event)
            view.on_tick()
        view.close("done: [runs/demo]")
        view.close("twice")
    view.on_tick()
    assert "done: [runs/demo]" in out.getvalue()
    assert "twice" not in out.getvalue()


def test_board_is_redrawn_once_per_second_however_often_it_is_asked(plan: BoardPlan) -> None:
    now, drawn = [100.0], 0
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with BoardView(plan, console=console, clock=lambda: now[0]) as view:
        for _ in range(40):
            now[0] += 0.25
            before = console.file.tell()
            view.on_tick()
            drawn += console.file.tell() > before
    assert drawn == 10


def test_auto_is_plain_where_output_is_not_a_terminal(
    plan: BoardPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(make_view("auto", plan=plan), PlainView)
    assert isinstance(make_view("plain", plan=plan), PlainView)
    assert isinstance(make_view("quiet", plan=plan), QuietView)
    with make_view("board", plan=plan) as view:
        assert isinstance(view, BoardView)


def test_sparkline_runs_from_the_lowest_to_the_highest() -> None:
    assert sparkline([3, 2, 1, 0], 8, is_unicode=False) == "@*-_"
    assert len(sparkline(list(range(1000)), 20)) == 20
    assert sparkline([], 20) == ""
    flat = sparkline([0.500, 0.501, 0.500], 8, min_span=0.05, is_unicode=False)
    assert len(set(flat)) == 1


def test_bar_is_as_long_as_its_share() -> None:
    assert [len(bar(share, 10, is_unicode=False)) for share in (-1, 0, 0.5, 1, 2)] == [
        0,
        0,
        5,
        10,
        10,
    ]
    assert bar(0.5, 3) == "\u2588\u258c"


def test_board_of_fine_tuning_shows_its_own_figures(plan: BoardPlan) -> None:
    plan = replace(plan, task="finetune", mae_only_epochs=0, sampler_learns=False)
    figures = {"finetune__top1": 0.25, "time__data": 0.25, "time__network": 0.75}
    events = [
        start(),
        record(6, 103.0, finetune__loss=2.0, **figures),
        record(12, 106.0, finetune__loss=1.5, val__top1=0.5, **figures),
    ]
    text = _text(_progress(plan, events))
    assert "fine-tuning" in text
    assert "2.00 -> 1.50" in _row(text, "loss")
    assert "50.0%" in _row(text, "validation")
    assert "75%" in _row(text, "time in network")
    assert "policy" not in text
    assert "reward" not in text
