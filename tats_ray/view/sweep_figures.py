"""A sweep as pictures: a bar for every point, a map of two fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tats_ray.core.arrays import Float
from tats_ray.view.curves import LIGHT

_OURS, _PAPER, _ = LIGHT.series
_PALE = "#a9c9ef"
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#2a78d6", "#12325c"])
_ROW = 0.3
"""Inches."""


@dataclass(frozen=True)
class Bar:
    """A point of the sweep."""

    name: str
    paper: tuple[float, ...]
    """What the paper prints; none, one, or two values."""
    value: float
    """Ours; NaN where there is none."""
    spread: float = math.nan
    """Of ours over seeds; NaN for one."""
    is_best: bool = False


def draw_bars(bars: Sequence[Bar], path: Path, *, ours: str, title: str) -> Figure:
    """Ours on the left, the paper's on the right where there is one; axes begin near the data.

    Args:
        ours: what our values are.
    """
    has_paper = any(bar.paper for bar in bars)
    margin = 0.35 + 0.075 * max(len(bar.name) for bar in bars)
    width, height = margin + (3.4 if has_paper else 0.0) + 3.8, 1.25 + _ROW * len(bars)
    figure = Figure(figsize=(width, height), dpi=150, facecolor=LIGHT.surface)
    FigureCanvasAgg(figure)
    figure.text(0.12 / width, 1 - 0.3 / height, title, fontsize=10, color=LIGHT.ink)
    places = np.arange(len(bars))
    left = figure.add_axes((margin / width, 0.6 / height, 3.3 / width, _ROW * len(bars) / height))
    values = np.array([bar.value for bar in bars])
    spreads = [0.0 if math.isnan(bar.spread) else bar.spread for bar in bars]
    colors = [_OURS if bar.is_best else _PALE for bar in bars]
    left.barh(places, np.nan_to_num(values), 0.66, color=colors, xerr=spreads, ecolor=LIGHT.muted)
    texts = ["-" if math.isnan(bar.value) else f"{bar.value:#.3g}" for bar in bars]
    _finish(left, texts, values, spreads, f"{ours}, ours")
    left.set_yticks(places, [bar.name for bar in bars], fontsize=8, color=LIGHT.ink)
    if has_paper:
        right = figure.add_axes(
            ((margin + 3.6) / width, 0.6 / height, 3.0 / width, _ROW * len(bars) / height)
        )
        printed = np.array([max(bar.paper, default=math.nan) for bar in bars])
        best = min((min(bar.paper) for bar in bars if bar.paper), default=math.nan)
        for place, bar in zip(places, bars, strict=True):
            share = 0.66 / max(len(bar.paper), 1)
            for number, value in enumerate(bar.paper):
                at = place - 0.33 + share * (number + 0.5)
                color = _PAPER if value == best else "#f2c3ae"
                right.barh(at, value, share, color=color)
        texts = [", ".join(f"{value:.4f}" for value in bar.paper) or "-" for bar in bars]
        _finish(right, texts, printed, [0.0] * len(bars), "error in the paper")
        right.set_yticks([])
    figure.savefig(path)
    return figure


def _finish(
    axes: Axes,
    texts: Sequence[str],
    values: Float[np.ndarray, " n"],
    spreads: Sequence[float],
    label: str,
) -> None:
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    room = max(high - low, 0.02 * abs(high), 1e-6)
    least = max(min(low - 0.35 * room, low - 1.2 * max(spreads)), 0.0)
    width = 0.45 if max(map(len, texts)) < 8 else 0.75  # for two values
    axes.set_xlim(least, high + width * room + max(spreads))
    axes.set_ylim(len(texts) - 0.4, -0.6)
    for place, value in enumerate(values):
        at = value + spreads[place] if math.isfinite(value) else least
        axes.text(at, place, f" {texts[place]}", va="center", fontsize=7.5, color=LIGHT.ink)
    axes.set_xlabel(f"{label} (axis from {least:.3g})", fontsize=8, color=LIGHT.muted)
    axes.tick_params(length=0, labelsize=7, labelcolor=LIGHT.muted)
    axes.locator_params(axis="x", nbins=5)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(LIGHT.grid)


def draw_heat(
    cells: Float[np.ndarray, "R C"],
    path: Path,
    *,
    names: tuple[str, str],
    labels: tuple[Sequence[str], Sequence[str]],
    title: str,
    is_best_lowest: bool,
) -> Figure:
    """Mean of a measure over two fields; darker is better, empty cells were not tried."""
    num_down, num_across = cells.shape
    margin = 0.75 + 0.075 * max(map(len, labels[0]))
    width, height = margin + 1.15 * num_across + 0.3, 1.35 + 0.55 * num_down
    width = max(width, margin + 2.8)
    figure = Figure(figsize=(width, height), dpi=150, facecolor=LIGHT.surface)
    FigureCanvasAgg(figure)
    box = (margin / width, 0.75 / height, 1.15 * num_across / width, 0.55 * num_down / height)
    axes = figure.add_axes(box)
    low, high = np.nanmin(cells), np.nanmax(cells)
    shade = (cells - low) / (high - low if high > low else 1.0)
    shade = 0.1 + 0.8 * (1 - shade if is_best_lowest else shade)
    axes.imshow(shade, cmap=_SHADES, vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        text = "not tried" if math.isnan(value) else f"{value:.3g}"
        dark = not math.isnan(value) and shade[row, column] > 0.45
        ink = "white" if dark else LIGHT.ink if text[0].isdigit() else LIGHT.muted
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_yticks(range(num_down), labels[0], fontsize=8, color=LIGHT.ink)
    axes.set_xticks(range(num_across), labels[1], fontsize=8, color=LIGHT.ink)
    axes.set_ylabel(names[0], fontsize=8, color=LIGHT.muted)
    axes.set_xlabel(names[1], fontsize=8, color=LIGHT.muted)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    words = f"{title}; darker is better"
    figure.text(0.12 / width, 1 - 0.3 / height, words, fontsize=10, color=LIGHT.ink)
    figure.savefig(path)
    return figure
