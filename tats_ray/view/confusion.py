"""A picture of the confusion matrix: which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tats_ray.core.arrays import Int

_INK, _MUTED = "#1a1a19", "#63625d"
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#2a78d6", "#12325c"])
_MOST_NUMBERS = 20
_MOST_NAMES = 60
"""With more classes than these, cells have no numbers, axes no names."""


def draw_confusion(
    counts: Int[np.ndarray, "C C"],
    path: Path | None,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """A row per true class; shades are shares of the row, numbers are videos.

    Args:
        path: PNG to write; None writes nothing.
        names: of the classes; default: their ids.
    """
    num = len(counts)
    names = list(names) if names is not None else [str(label) for label in range(num)]
    side = min(max(0.42 * num, 2.6), 11.0)
    margin = 0.07 * max(map(len, names)) if num <= _MOST_NAMES else 0.3
    left, bottom, top, right = margin + 0.55, margin + 0.55, 0.5, 0.85
    width, height = left + side + right, bottom + side + top
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    videos = counts.sum(1, keepdims=True)
    shares = np.divide(counts, videos, out=np.zeros(counts.shape), where=videos > 0)
    image = axes.imshow(shares, cmap=_SHADES, vmin=0.0, vmax=1.0, interpolation="nearest")
    if num <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "white" if shares[row, column] > 0.4 else _INK
                axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    ticks = range(num) if num <= _MOST_NAMES else []
    labels = [names[at] for at in ticks]
    axes.set_xticks(list(ticks), labels, rotation=90, fontsize=8, color=_INK)
    axes.set_yticks(list(ticks), labels, fontsize=8, color=_INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(_MUTED)
    axes.set_xlabel("predicted", color=_MUTED, fontsize=9)
    axes.set_ylabel("true", color=_MUTED, fontsize=9)
    figure.text(0.12 / width, 1 - 0.28 / height, title, fontsize=10, color=_INK)
    bar = figure.add_axes(
        ((left + side + 0.12) / width, bottom / height, 0.1 / width, side / height)
    )
    figure.colorbar(image, cax=bar).outline.set_visible(False)
    bar.tick_params(length=0, labelsize=7, labelcolor=_MUTED)
    bar.set_ylabel("share of the true class", color=_MUTED, fontsize=7)
    if path is not None:
        figure.savefig(path)
    return figure
