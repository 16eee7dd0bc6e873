"""The live board: where a run stands, whether it is healthy, and what it waits for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tats_ray.core.words import three
from tats_ray.view.lines import PlainView, QuietView
from tats_ray.view.progress import (
    BoardPlan,
    Event,
    Progress,
    View,
    format_duration,
    is_warning,
)

__all__ = ["BoardPlan", "BoardView", "Mode", "View", "draw_board", "make_view"]

Mode = Literal["auto", "board", "plain", "quiet"]

MAX_WIDTH = 108
_NUM_NOTES = 4
_SPARK_WIDTH = 20
_MIN_SPAN = 0.05
_SILENCE_S = 30.0
_COLOURS = {"data": "blue", "mae": "cyan", "policy": "magenta", "network": "cyan"}
_LEVELS = "".join(chr(code) for code in range(0x2581, 0x2589))  # one eighth to a whole, upwards
_EIGHTHS = " " + "".join(chr(code) for code in range(0x258F, 0x2587, -1))  # towards the right
_PLAIN_LEVELS = "_.-=+*#@"
_REDRAW_S = 0.9  # a little less than every second tick, which drifts


def make_view(mode: Mode, *, plan: BoardPlan) -> View:
    """The view that `mode` names; `auto` is the board on a terminal and plain lines elsewhere."""
    if mode == "quiet":
        return QuietView()
    if mode == "board" or (mode == "auto" and sys.stdout.isatty()):
        return BoardView(plan)
    return PlainView(plan)


class BoardView(View):
    """One panel, redrawn in place once per second, which costs 0.7 % of a core."""

    def __init__(
        self,
        plan: BoardPlan,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._console = console or Console()
        self._progress = Progress(plan, clock=clock)
        self._clock, self._drawn_at = clock, clock()
        # No thread of rich's own: the driver's ticks redraw it, and events only change numbers,
        # so a signal handler may send one at any time.
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self.render)
        self.is_closed = False
        self._live.start(refresh=True)

    def on_event(self, event: Event) -> None:
        self._progress.on_event(event)

    def on_tick(self) -> None:
        if not self.is_closed and self._clock() - self._drawn_at >= _REDRAW_S:
            self._drawn_at = self._clock()
            self._live.refresh()

    def close(self, text: str = "") -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._live.refresh()
        self._live.stop()
        if text:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> RenderableType:
        return draw_board(
            self._progress,
            width=min(self._console.width, MAX_WIDTH),
            is_unicode=self._console.encoding.lower().startswith("utf"),
        )


def draw_board(progress: Progress, *, width: int, is_unicode: bool = True) -> Panel:
    """The panel, `width` characters wide with its border."""
    inner = max(width - 6, 20)
    parts: list[RenderableType] = [
        _headline(progress, inner),
        _progress_bar(progress, inner, is_unicode),
        _eta_line(progress),
        Text(),
        _measures(progress, is_unicode, is_wide=width >= 96),
    ]
    if progress.latest("time/data") is not None:
        parts += [Text(), _rooms(progress, max(min(inner - 16, 40), 8), is_unicode)]
        if progress.is_data_bound:
            parts.append(Text(progress.data_advice, style="yellow"))
    parts += _messages(progress)
    return Panel(
        Group(*parts),
        title=Text.assemble((" TATS  ", "not dim"), (f"{progress.plan.name} ", "bold not dim")),
        title_align="left",
        subtitle=Text(f" {format_duration(progress.elapsed_s)} "),
        subtitle_align="right",
        border_style="dim",
        padding=(1, 2),
        width=width,
    )


def _headline(progress: Progress, width: int) -> RenderableType:
    plan, step = progress.plan, progress.step
    if progress.is_resumed is None:
        return Text("starting: processes, networks, first videos", style="bold")
    phase = Text(plan.phase(step), style="bold cyan" if plan.is_mae_only(step) else "bold magenta")
    if plan.is_mae_only(step) and plan.sampler_learns:
        phase.append(f" ({plan.mae_only_masks})", style="not bold")
    place = f"epoch {plan.epoch(step)}/{plan.total_epochs}   step {step}/{plan.total_steps}"
    if len(phase) + len(place) + 3 > width:
        return Group(phase, Text(place))
    row = Table.grid(expand=True)
    row.add_column()
    row.add_column(justify="right")
    row.add_row(phase, place)
    return row


def _progress_bar(progress: Progress, width: int, is_unicode: bool) -> Text:
    """Steps done, in the colours of the phases, with the place marked where the sampler joins."""
    plan = progress.plan
    width -= 5  # the percentage
    share = progress.step / max(plan.total_steps, 1)
    # The rest is another character, too: colours may be off.
    line, rest, mark = ("\u2501", "\u2500", "\u253c") if is_unicode else ("=", "-", "|")
    done, joint = round(share * width), round(plan.mae_only_steps / plan.total_steps * width)
    text = Text()
    for place in range(width):
        is_mark = plan.sampler_learns and place == joint > 0
        phase = "magenta" if plan.sampler_learns and place >= joint else "cyan"
        glyph, style = (line, phase) if place < done else (rest, "bright_black")
        text.append(mark if is_mark else glyph, style=style)
    return text.append(f"{share:>5.0%}")


def _eta_line(progress: Progress) -> Text:
    left = progress.eta_s
    if progress.silent_s > _SILENCE_S and progress.step < progress.plan.total_steps:
        silent = format_duration(progress.silent_s)
        return Text(f"no news from the learners for {silent}", style="yellow")
    if left is None:
        return Text("time left: known after the first steps", style="dim")
    # The clock goes on between two records.
    left = max(left - progress.silent_s, 0.0)
    text = Text(f"about {format_duration(left)} left")
    if progress.eta_is_optimistic:
        first = progress.plan.mae_only_epochs + 1
        text.append(
            f" at this rate; slower from epoch {first}, when the sampler joins", style="dim"
        )
    return text


def _measures(progress: Progress, is_unicode: bool, *, is_wide: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=14)
    table.add_column(no_wrap=True, min_width=15)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    for name, value, key, meaning in _rows(progress):
        points = progress.history.get(key, [])
        # One value has no course.
        course = [point.value for point in points] if len(points) > 1 else []
        span = _MIN_SPAN * min(1.0, max(map(abs, course), default=1.0))
        spark = sparkline(course, _SPARK_WIDTH, min_span=span, is_unicode=is_unicode)
        table.add_row(name, value, spark, meaning if is_wide else "")
    return table


def _rows(progress: Progress) -> Iterator[tuple[str, Text, str, str]]:
    """What, its value, the metric whose course is drawn, and what it means."""
    speed = _value(progress, "data/clips_per_s", "{} clips/s")
    if progress.plan.task == "finetune":
        loss, top1, val = "finetune/loss", "finetune/top1", "val/top1"
        yield "loss", _course(progress, loss), loss, "cross-entropy of mixed clips"
        yield "top-1", _percent(progress, top1), top1, "of augmented training clips"
        yield "validation", _percent(progress, val), val, "top-1 of one clip of each video"
        yield "speed", speed, "data/clips_per_s", ""
        return
    yield (
        "reconstruction",
        _course(progress, "mae/loss"),
        "mae/loss",
        "error under the training masks",
    )
    yield "validation", _course(progress, "eval/error"), "eval/error", "error, fixed random masks"
    yield "reward", _value(progress, "env/reward", "{}"), "env/reward", "mean over the draws"
    spread = "eval/entropy" if progress.history.get("eval/entropy") else "policy/entropy"
    shown = _value(progress, spread, "{} of log N")
    yield "entropy", shown, spread, "1 is uniform, 0 is sure of one token"
    # Where a measurement came without motion, the videos do not know theirs.
    if progress.latest("eval/error") is None or progress.latest("eval/motion_ratio") is not None:
        ratio = _value(progress, "eval/motion_ratio", "{}x chance")
        meaning = f"moving tokens among the {progress.plan.num_visible} visible"
        yield "visible motion", ratio, "eval/motion_ratio", meaning
        auc = _value(progress, "eval/motion_auc", "{}")
        yield "motion AUC", auc, "eval/motion_auc", "0.5 is chance, 1 ranks motion first"
    yield "speed", speed, "data/clips_per_s", ""


def _course(progress: Progress, name: str) -> Text:
    first, now = progress.first(name), progress.latest(name)
    if first is None or now is None:
        return Text("-", style="dim")
    return Text.assemble((f"{three(first)} -> ", "dim"), (three(now), "bold"))


def _value(progress: Progress, name: str, form: str) -> Text:
    value = progress.latest(name)
    if value is None:
        return Text("-", style="dim")
    return Text(form.format(three(value)), style="bold")


def _percent(progress: Progress, name: str) -> Text:
    value = progress.latest(name)
    return Text("-", style="dim") if value is None else Text(f"{value:.1%}", style="bold")


def _rooms(progress: Progress, width: int, is_unicode: bool) -> Table:
    """Share of the time that each room took."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=14)
    table.add_column(justify="right")
    table.add_column()
    for room in progress.plan.rooms:
        share = progress.latest(f"time/{room}") or 0.0
        shown = Text(bar(share, width, is_unicode=is_unicode), style=_COLOURS[room])
        label = "time in MAE" if room == "mae" else f"time in {room}"
        table.add_row(label, f"{share:.0%}", shown)
    handover = progress.latest("time/handover")
    if handover is not None:  # a part of the policy's, which is the last
        table.add_row("  hand-over", f"{handover:.0%}")
    return table


def _messages(progress: Progress) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if progress.is_resumed:
        lines.append(Text("RESUMED from a checkpoint", style="dim"))
    if progress.last_checkpoint is not None:
        lines.append(
            Text.assemble(
                ("checkpoint ", "dim"),
                f"step {progress.checkpoint_step}, {progress.last_checkpoint}",
                overflow="fold",
            )
        )
    for note in progress.notes[-_NUM_NOTES:]:
        lines.append(Text(f"note  {note}", style="yellow" if is_warning(note) else ""))
    return [Text(), *lines] if lines else []


def sparkline(
    values: Sequence[float], width: int, *, min_span: float = 0.0, is_unicode: bool = True
) -> str:
    """The course of `values` in at most `width` characters, from their lowest to their highest.

    Each character is the mean of an equal share of the values.

    Args:
        min_span: a smaller difference does not fill the height: noise is to look flat.
    """
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(part * len(values) / count) for part in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    levels = _LEVELS if is_unicode else _PLAIN_LEVELS
    span = max(min_span, 1e-12)
    if high - low < span:
        # The middle falls on a level, not between two, where noise would flicker.
        return "".join(levels[min(4 + round((m - (low + high) / 2) / span * 7), 7)] for m in means)
    return "".join(levels[round((mean - low) / (high - low) * 7)] for mean in means)


def bar(share: float, width: int, *, is_unicode: bool = True) -> str:
    """A bar of `share` of `width` characters, to an eighth of a character; not padded."""
    share = min(max(share, 0.0), 1.0)
    if not is_unicode:
        return "#" * round(share * width)
    whole, part = divmod(round(share * width * 8), 8)
    return _EIGHTHS[8] * whole + (_EIGHTHS[part] if part else "")
