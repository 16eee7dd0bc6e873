"""Curves as vector pictures in the colours of the page; `report.js` shows the values of a step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Literal

from matplotlib.ticker import MaxNLocator

from tats_ray.core.words import three, told_apart

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 18, 36
_WIDE = 20
"""Values that differ by more than this factor are drawn on a logarithmic scale."""
_MOST_POINTS = 400
_FEW_POINTS = 25
"""Fewer are marked with a dot each."""

Unit = Literal["", "x", "%"]


@dataclass(frozen=True, slots=True)
class Line:
    """Finite values over steps, which rise."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One question to some metrics, drawn as lines over MAE steps."""

    title: str
    meaning: str
    lines: Sequence[Line]
    """Those without a single value are not drawn."""
    level: tuple[float, str] | None = None
    """A value to compare with, and what it is."""
    span: tuple[float, float] | None = None
    """Values that are always in sight, or noise around chance would fill the picture."""
    unit: Unit = ""
    may_be_log: bool = False
    mark: tuple[float, str] | None = None
    """A step at which something happens, and what."""


def plot_html(plot: Plot) -> str:
    """A figure that answers pointer and arrow keys; without scripts it shows the last values."""
    lines = [line for line in plot.lines if line.steps]
    numbers = [number for number, line in enumerate(plot.lines) if line.steps]
    canvas = _Canvas(plot, lines)
    data = [
        {
            "name": line.name,
            "steps": line.steps,
            "texts": [_text(v, plot.unit) for v in line.values],
        }
        for line in canvas.lines
    ]
    last = max(line.steps[-1] for line in lines)
    readout = "; ".join(f"{line.name} {_text(line.values[-1], plot.unit)}" for line in lines)
    words = escape(plot.title)
    legend = "".join(
        f'<span><i class="s{number}"></i>{escape(line.name)}</span>'
        for number, line in zip(numbers, lines, strict=True)
    )
    drawn = "".join(
        canvas.line(number, line) for number, line in zip(numbers, canvas.lines, strict=True)
    )
    return (
        f'<figure><h3>{words}</h3><p class="legend">{legend if len(plot.lines) > 1 else ""}</p>'
        f'<div class="plot" tabindex="0" role="slider" aria-label="{words}" aria-valuemin="0" '
        f'aria-valuemax="{last:g}" aria-valuenow="{last:g}" '
        f'aria-valuetext="step {last:g}: {escape(readout)}" '
        f'data-lines="{escape(json.dumps(data, separators=(",", ":")))}">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{"".join(canvas.frame())}{drawn}'
        f'<line class="here" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" hidden></line></svg></div>'
        f'<p class="readout">step {last:g}: {escape(readout)}</p>'
        f"<figcaption>{escape(plot.meaning)}</figcaption></figure>"
    )


def _text(value: float, unit: Unit) -> str:
    return f"{three(100 * value)} %" if unit == "%" else f"{three(value)}{unit}"


class _Canvas:
    """Where values of a plot lie on its picture."""

    def __init__(self, plot: Plot, lines: Sequence[Line]) -> None:
        self._plot = plot
        self.lines = [_thinned(line) for line in lines]
        values = [value for line in lines for value in line.values]
        self._last = max(line.steps[-1] for line in lines) or 1
        level = [plot.level[0]] if plot.level else []
        positive = [value for value in values if value > 0]
        self._is_log = plot.may_be_log and bool(positive) and max(positive) > _WIDE * min(positive)
        if self._is_log:
            # What is drawn is drawn somewhere: zero lies at the bottom.
            in_sight = [value for value in [*positive, *level] if value > 0]
            self._low, self._high = min(in_sight) / 1.15, max(in_sight) * 1.15
            self._ticks = _decades(self._low, self._high)
        else:
            # Round-off in the seventh digit is not to open another step of the axis.
            in_sight = [float(f"{v:.6g}") for v in (*values, *level, *(plot.span or ()))]
            locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
            ticks = locator.tick_values(min(in_sight), max(in_sight))
            self._ticks = [float(tick) for tick in ticks]
            self._low, self._high = self._ticks[0], self._ticks[-1]

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self._last

    def y(self, value: float) -> float:
        low, high = self._low, self._high
        if self._is_log:
            low, high, value = (math.log10(max(v, self._low)) for v in (low, high, value))
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    def line(self, number: int, line: Line) -> str:
        places = [
            f"{self.x(step):.1f},{self.y(value):.1f}"
            for step, value in zip(line.steps, line.values, strict=True)
        ]
        dots = (place.split(",") for place in places if len(places) < _FEW_POINTS)
        marks = "".join(f'<circle class="s{number}" cx="{x}" cy="{y}" r="2.6"/>' for x, y in dots)
        return f'<polyline class="s{number}" points="{" ".join(places)}"/>{marks}'

    def frame(self) -> Iterator[str]:
        """Axes, and what to compare with."""
        unit = self._plot.unit
        scale, ending = (100, " %") if unit == "%" else (1, unit)
        labels = told_apart([scale * tick for tick in self._ticks])
        for tick, label in zip(self._ticks, labels, strict=True):
            y = self.y(tick)
            yield _across("grid", y)
            yield _words(_LEFT - 6, y + 4, label + ending, "end")
        steps: Any = MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]).tick_values(
            0, self._last
        )
        for step in [step for step in steps if step <= self._last]:
            yield _words(self.x(step), _HEIGHT - _BOTTOM + 15, f"{step:g}", "middle")
        yield _words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, "MAE step", "middle")
        if self._plot.level:
            value, what = self._plot.level
            y = self.y(value)
            yield _across("level", y)
            yield _words(_WIDTH - _RIGHT, y + (12 if self._is_crowded(value) else -4), what, "end")
        if self._plot.mark and 0 < self._plot.mark[0] < self._last:
            x = self.x(self._plot.mark[0])
            foot = _HEIGHT - _BOTTOM
            yield f'<line class="level" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{foot}"/>'
            yield _words(x, _TOP - 5, self._plot.mark[1], "start" if x < 130 else "middle")

    def _is_crowded(self, level: float) -> bool:
        """Whether a line ends above the level, where its words would stand."""
        return any(level < line.values[-1] for line in self.lines)


def _across(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _words(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _decades(low: float, high: float) -> list[float]:
    """Round values on a logarithmic axis: powers of ten, and what lies between where few fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for parts in ((1, 2, 5), (1,)):
        ticks = [part * 10.0**power for power in range(first, last + 1) for part in parts]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 6:
            break
    return ticks[:: -(-len(ticks) // 6) or 1] if ticks else [low, high]


def _thinned(line: Line) -> Line:
    """The ends, and the least and greatest of each of so many parts, which keeps every spike."""
    count = len(line.steps)
    if count <= _MOST_POINTS:
        return line
    edges = [round(part * count / (_MOST_POINTS // 2)) for part in range(_MOST_POINTS // 2 + 1)]
    kept = {0, count - 1}
    for start, end in pairwise(edges):
        part = range(start, end)
        kept |= {min(part, key=line.values.__getitem__), max(part, key=line.values.__getitem__)}
    order = sorted(kept)
    return Line(line.name, [line.steps[at] for at in order], [line.values[at] for at in order])
