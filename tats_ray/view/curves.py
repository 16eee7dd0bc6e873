"""The curves of a run, one small figure each, for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from tats_ray.core.words import decimal
from tats_ray.view.records import Record, series

PLATEAU = 511 / 512
"""Error of predicting the mean for tokens of 512 pixels [method section 4]."""
_SIZE = (4.6, 2.75)
_DPI = 200
_WIDE = 20
"""A curve whose values differ by more than this factor is drawn on a logarithmic scale."""


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
    legend: tuple[str, ...]
    """Names of the series, in the order of `Theme.series`; empty where there is one."""
    light: bytes
    """PNG."""
    dark: bytes


def draw_curves(
    metrics: Sequence[Record], *, plateau: float | None = PLATEAU, sampler_step: int | None = None
) -> list[Curve]:
    """One curve per question; those without a single value are left out.

    Args:
        plateau: error of predicting the mean; None where nobody knows it.
        sampler_step: MAE steps before the sampler takes part; None marks nothing.
    """
    painter = _Painter(metrics, plateau, sampler_step)
    return [
        Curve(*picture[:3], painter.png(picture, LIGHT), painter.png(picture, DARK))
        for picture in painter.pictures()
        if any(series(metrics, name)[0] for name in picture.names)
    ]


class _Picture(NamedTuple):
    """What a curve says, the metrics it needs one of, and who paints it."""

    title: str
    meaning: str
    legend: tuple[str, ...]
    names: tuple[str, ...]
    paint: Callable[[Axes, Theme], None]


class _Painter:
    def __init__(
        self, metrics: Sequence[Record], plateau: float | None, sampler_step: int | None
    ) -> None:
        self._metrics = metrics
        self._plateau = plateau
        self._sampler_step = sampler_step
        self._last_step = max((record["step"] for record in metrics), default=1)

    def pictures(self) -> list[_Picture]:
        return [
            _Picture(
                "Reconstruction error",
                "Mean squared error of hidden tokens. Lower is better. Training uses the "
                "current masks. Validation uses one fixed set of random masks, and then the "
                "sampler's own.",
                ("training", "validation", "validation, own masks"),
                ("mae/loss", "eval/error"),
                self._error,
            ),
            _Picture(
                "Motion among the visible tokens",
                "How over-represented moving tokens are among the visible ones. At 1 the sampler "
                "ignores motion.",
                (),
                ("eval/motion_ratio",),
                self._motion,
            ),
            _Picture(
                "Entropy of the sampler",
                "1 means that all tokens are equally likely. The lower it is, the surer the "
                "sampler is of a few.",
                ("training clips", "validation clips"),
                ("eval/entropy", "policy/entropy"),
                self._entropy,
            ),
            _Picture(
                "Ranking of motion (AUC)",
                "Probability that the sampler prefers a moving token to a still one of the same "
                "clip.",
                (),
                ("eval/motion_auc",),
                self._auc,
            ),
            _Picture(
                "Overlap of draws",
                "Share of visible tokens that two draws have in common. If different clips share "
                "as many as two draws for one clip, the sampler ignores what it sees.",
                ("different clips", "same clip, two measurements"),
                ("eval/clip_overlap",),
                self._overlap,
            ),
            _Picture(
                "Tokens in play",
                "Tokens that the sampler chooses from, and tokens that carry the error of a clip. "
                "With far fewer in play than carry error, it has stopped exploring.",
                ("in play", "with error"),
                ("eval/effective_tokens",),
                self._tokens,
            ),
            _Picture(
                "Where the time goes",
                "Share of the wall time. If data dominates, the decoder is the bottleneck. "
                "The rest up to 100 % is measuring and saving.",
                ("MAE", "data", "policy"),
                ("time/mae",),
                self._time,
            ),
        ]

    def _error(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "mae/loss", theme.series[0])
        self._line(axes, "eval/error", theme.series[1])
        self._line(axes, "eval/own_error", theme.series[2])
        if self._plateau is not None:
            words = f"predicting the mean: {decimal(self._plateau, 3)}"
            last = series(self._metrics, "eval/error")[1][-1:]
            self._limit(axes, theme, self._plateau, words, is_below=last > [self._plateau])
        values = [v for name in ("mae/loss", "eval/error") for v in series(self._metrics, name)[1]]
        positive = [value for value in values if value > 0]
        if positive and max(positive) > _WIDE * min(positive):
            axes.set_yscale("log")  # plain pixels: the first error is a thousand times the last
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        elif self._plateau is not None:
            self._at_least(axes, 0.9 * self._plateau, 1.02 * self._plateau)

    def _motion(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "eval/motion_ratio", theme.series[0])
        self._limit(axes, theme, 1.0, "chance")
        self._at_least(axes, 0.8, 1.4)
        axes.yaxis.set_major_formatter("{x:.1f}x")

    def _entropy(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "policy/entropy", theme.series[0])
        self._line(axes, "eval/entropy", theme.series[1])
        axes.set_ylim(0.0, 1.05)

    def _auc(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "eval/motion_auc", theme.series[0])
        self._limit(axes, theme, 0.5, "chance")
        self._at_least(axes, 0.4, 1.0)

    def _overlap(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "eval/clip_overlap", theme.series[0])
        self._line(axes, "eval/draw_overlap", theme.series[1])
        axes.set_ylim(0.0, 1.05)

    def _tokens(self, axes: Axes, theme: Theme) -> None:
        self._line(axes, "eval/effective_tokens", theme.series[0])
        self._line(axes, "eval/error_tokens", theme.series[1])
        axes.set_ylim(bottom=0.0)

    def _time(self, axes: Axes, theme: Theme) -> None:
        records = [record for record in self._metrics if record.get("time/mae") is not None]
        rooms = ("mae", "data", "policy")
        shares = [[record.get(f"time/{room}") or 0.0 for record in records] for room in rooms]
        axes.stackplot(
            [record["step"] for record in records],
            shares,
            colors=theme.series,
            edgecolor=theme.surface,
            linewidth=0.8,
        )
        axes.set_ylim(0.0, max(1.0, *map(sum, zip(*shares, strict=True))))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    def _line(self, axes: Axes, name: str, colour: str) -> None:
        steps, values = series(self._metrics, name)
        if steps:
            marker = "o" if len(steps) < 25 else None
            axes.plot(steps, values, color=colour, lw=1.8, marker=marker, ms=3.2)

    def _at_least(self, axes: Axes, low: float, high: float) -> None:
        """Show this range whatever the values, or noise around chance would fill the picture."""
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(low, bottom), max(high, top))

    def _limit(
        self, axes: Axes, theme: Theme, value: float, text: str, *, is_below: bool = False
    ) -> None:
        """A level to compare with, written on the line's right end, above or below it."""
        axes.axhline(value, color=theme.muted, lw=1.0, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            text,
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -3 if is_below else 3),
            textcoords="offset points",
            ha="right",
            va="top" if is_below else "bottom",
            fontsize=8,
            color=theme.muted,
        )

    def png(self, picture: _Picture, theme: Theme) -> bytes:
        figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor=theme.surface, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(facecolor=theme.surface)
        picture.paint(axes, theme)
        axes.set_xlim(0, self._last_step)
        axes.set_xlabel("MAE step", color=theme.muted, fontsize=8.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(labelcolor=theme.muted, labelsize=8.5, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(theme.grid)
        axes.grid(axis="y", color=theme.grid, lw=0.8)
        axes.set_axisbelow(True)
        self._mark_start(axes, theme)
        out = io.BytesIO()
        figure.savefig(out, format="png")
        return out.getvalue()

    def _mark_start(self, axes: Axes, theme: Theme) -> None:
        if not self._sampler_step or self._sampler_step >= self._last_step:
            return
        axes.axvline(self._sampler_step, color=theme.muted, lw=1.0, ls=":", zorder=1)
        axes.annotate(
            "sampler starts",
            (self._sampler_step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="left" if self._sampler_step < 0.15 * self._last_step else "center",
            fontsize=8,
            color=theme.muted,
        )
