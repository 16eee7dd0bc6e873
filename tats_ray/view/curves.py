"""The courses of a run, one small figure each, for light and for dark pages."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Record = Mapping[str, Any]

PLATEAU = 511 / 512
"""Error of predicting nothing for tokens of 512 pixels [method section 4]."""
_SIZE = (4.6, 2.75)
_DPI = 200


class Theme(NamedTuple):
    """Colours of a page; the series are told apart with any kind of colour vision."""

    surface: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, str, str]


LIGHT = Theme("#ffffff", "#1a1a19", "#63625d", "#e6e5e0", ("#2a78d6", "#d9591f", "#1f9d6b"))
DARK = Theme("#1c1c1b", "#f2f1ec", "#a8a69f", "#343431", ("#5a9df0", "#ee7a45", "#35b883"))


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture of some metrics over steps, in both themes."""

    title: str
    meaning: str
    light: bytes
    """PNG."""
    dark: bytes


def series(metrics: Sequence[Record], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, where it was measured and finite."""
    points = [(r["step"], r[name]) for r in metrics if r.get(name) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in points], [value for _, value in points]


def sampler_start(metrics: Sequence[Record]) -> int | None:
    """The last record without the policy before the first with it; None if it took no part."""
    previous = 0
    for record in metrics:
        if any(name.startswith("policy/") for name in record):
            return previous
        if "mae/loss" in record:
            previous = int(record["step"])
    return None


def draw_curves(
    metrics: Sequence[Record], *, plateau: float = PLATEAU, sampler_step: int | None = None
) -> list[Curve]:
    """One curve per question; those without a single value are left out.

    Args:
        plateau: error of predicting nothing.
        sampler_step: MAE steps before the sampler takes part; None marks nothing.
    """
    painter = _Painter(metrics, plateau, sampler_step)
    return [
        Curve(title, meaning, _png(paint, LIGHT), _png(paint, DARK))
        for title, meaning, names, paint in painter.pictures()
        if any(series(metrics, name)[0] for name in names)
    ]


_Paint = Callable[[Axes, Theme], None]


class _Painter:
    def __init__(
        self, metrics: Sequence[Record], plateau: float, sampler_step: int | None
    ) -> None:
        self._metrics = metrics
        self._plateau = plateau
        self._sampler_step = sampler_step
        self._last_step = max((record["step"] for record in metrics), default=1)

    def pictures(self) -> Iterator[tuple[str, str, tuple[str, ...], _Paint]]:
        """Title, meaning, the metrics shown, and the painter."""
        yield (
            "Reconstruction error",
            "Mean squared error of hidden tokens; lower is better. Training is under the masks of "
            "the moment, validation under one set of random masks that never changes.",
            ("mae/loss", "eval/error"),
            self._error,
        )
        yield (
            "Motion among the visible tokens",
            "How much likelier a visible token is to move than any token. At 1 the sampler does "
            "not care about motion.",
            ("eval/motion_ratio",),
            self._motion,
        )
        yield (
            "Entropy of the sampler",
            "1 spreads the choice evenly over all tokens; under 0.5 the sampler has collapsed "
            "onto a few.",
            ("eval/entropy", "policy/entropy"),
            self._entropy,
        )
        yield (
            "Ranking of motion (AUC)",
            "Chance that a moving token is preferred to a still one of the same clip.",
            ("eval/motion_auc",),
            self._auc,
        )
        yield (
            "Where the time goes",
            "Share of the wall time. Mostly data means that the decoder is the bottleneck.",
            ("time/mae",),
            self._time,
        )

    def _error(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "mae/loss", "training", theme.series[0])
        self._line(axes, "eval/error", "validation", theme.series[1])
        self._limit(axes, theme, self._plateau, f"predicting nothing: {self._plateau:.3f}")
        axes.legend(loc="lower left")

    def _motion(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "eval/motion_ratio", "motion", theme.series[0])
        self._limit(axes, theme, 1.0, "chance")
        axes.yaxis.set_major_formatter("{x:.1f}x")

    def _entropy(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "policy/entropy", "training clips", theme.series[0])
        self._line(axes, "eval/entropy", "validation clips", theme.series[1])
        self._limit(axes, theme, 0.5, "collapse below 0.5")
        axes.set_ylim(0.0, 1.05)
        axes.legend(loc="lower left")

    def _auc(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "eval/motion_auc", "AUC", theme.series[0])
        self._limit(axes, theme, 0.5, "chance")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.4), max(high, 1.0))

    def _time(self, axes: Axes, theme: Theme) -> None:
        records = [record for record in self._metrics if record.get("time/mae") is not None]
        rooms = ("data", "mae", "policy")
        shares = [[record.get(f"time/{room}") or 0.0 for record in records] for room in rooms]
        axes.stackplot(
            [record["step"] for record in records],
            shares,
            labels=["data", "MAE", "policy"],
            colors=[theme.series[1], theme.series[0], theme.series[2]],
            edgecolor=theme.surface,
            linewidth=0.8,
        )
        axes.set_ylim(0.0, max(1.0, *map(sum, zip(*shares, strict=True))))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="lower left", ncols=3)

    def _line(self, axes: Axes, name: str, label: str, colour: str) -> None:
        steps, values = series(self._metrics, name)
        if steps:
            marker = "o" if len(steps) < 25 else None
            axes.plot(steps, values, color=colour, label=label, lw=1.8, marker=marker, ms=3.2)

    def _limit(self, axes: Axes, theme: Theme, value: float, text: str) -> None:
        """A level to compare with, written on the line's right end."""
        axes.axhline(value, color=theme.muted, lw=1.0, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            text,
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=theme.muted,
        )

    def frame(self, axes: Axes, theme: Theme) -> None:
        """What all curves share: steps below, and where the sampler starts."""
        axes.set_xlim(0, self._last_step)
        axes.set_xlabel("MAE step", color=theme.muted)
        if self._sampler_step and self._sampler_step < self._last_step:
            axes.axvline(self._sampler_step, color=theme.muted, lw=1.0, ls=":", zorder=1)
            axes.annotate(
                "sampler starts",
                (self._sampler_step, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=theme.muted,
            )


def _png(paint: _Paint, theme: Theme) -> bytes:
    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor=theme.surface, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=theme.surface)
    paint(axes, theme)
    owner: _Painter = paint.__self__  # type: ignore[attr-defined]
    owner.frame(axes, theme)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.grid)
    axes.grid(axis="y", color=theme.grid, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=theme.grid, labelcolor=theme.muted, labelsize=8.5, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend = axes.get_legend()
    if legend is not None:
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set(color=theme.ink, fontsize=8.5)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
