"""The curves of one run and of several, as questions; and the colours of pictures and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tats_ray.core.words import three
from tats_ray.view.glossary import GLOSSARY
from tats_ray.view.page.plots import Line, Plot
from tats_ray.view.records import Record, series

PLATEAU = 511 / 512
"""Error of predicting the mean for tokens of 512 pixels [method section 4]."""


class Theme(NamedTuple):
    """Colours of a page; the series are told apart with any kind of colour vision."""

    surface: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, str, str]


LIGHT = Theme("#ffffff", "#1a1a19", "#63625d", "#e6e5e0", ("#2a78d6", "#d9591f", "#1f9d6b"))
DARK = Theme("#1c1c1b", "#f2f1ec", "#a8a69f", "#343431", ("#5a9df0", "#ee7a45", "#35b883"))


class _Question(NamedTuple):
    """What a plot of one run asks: its words, its metrics by name of their line, its axis."""

    title: str
    meaning: str
    lines: Mapping[str, str]
    axis: Mapping[str, Any]


_QUESTIONS = (
    _Question(
        "Reconstruction error",
        "Mean squared error of hidden tokens. Lower is better. Training uses the current masks. "
        "Validation uses one fixed set of random masks, and then the sampler's own.",
        {
            "training": "mae/loss",
            "validation": "eval/error",
            "validation, own masks": "eval/own_error",
        },
        {"may_be_log": True},
    ),
    _Question(
        "Motion among the visible tokens",
        "How over-represented moving tokens are among the visible ones. At 1 the sampler ignores "
        "motion.",
        {"motion": "eval/motion_ratio"},
        {"level": (1.0, "chance"), "span": (0.8, 1.4), "unit": "x"},
    ),
    _Question(
        "Entropy of the sampler",
        "1 means that all tokens are equally likely. The lower it is, the surer the sampler is of "
        "a few.",
        {"training clips": "policy/entropy", "validation clips": "eval/entropy"},
        {"span": (0.0, 1.0)},
    ),
    _Question(
        "Ranking of motion (AUC)",
        "Probability that the sampler prefers a moving token to a still one of the same clip.",
        {"AUC": "eval/motion_auc"},
        {"level": (0.5, "chance"), "span": (0.4, 1.0)},
    ),
    _Question(
        "Overlap of draws",
        "Share of visible tokens that two draws have in common. If different clips share as many "
        "as two draws for one clip, the sampler ignores what it sees.",
        {
            "different clips": "eval/clip_overlap",
            "same clip, two measurements": "eval/draw_overlap",
        },
        {"span": (0.0, 1.0)},
    ),
    _Question(
        "Tokens in play",
        "Tokens that the sampler chooses from, and tokens that carry the error of a clip. With far "
        "fewer in play than carry error, it has stopped exploring.",
        {"in play": "eval/effective_tokens", "with error": "eval/error_tokens"},
        {"span": (0.0, 0.0)},
    ),
    _Question(
        "Where the time goes",
        "Share of the wall time. If data dominates, the decoder is the bottleneck. The rest up to "
        "100 % is measuring and saving.",
        {"MAE": "time/mae", "data": "time/data", "policy": "time/policy"},
        {"span": (0.0, 1.0), "unit": "%"},
    ),
)

_COMPARED = {
    "eval/error": "Validation error",
    "eval/own_error": "Error under its own masks",
    "mae/loss": "Training error",
    "eval/motion_ratio": "Motion among the visible tokens",
    "eval/motion_auc": "Ranking of motion (AUC)",
    "eval/entropy": "Entropy of the sampler",
    "data/clips_per_s": "Clips per second",
}


def curves_of(
    metrics: Sequence[Record], *, plateau: float | None = PLATEAU, sampler_step: int | None = None
) -> list[Plot]:
    """One plot per question; those without a single value are left out.

    Args:
        plateau: error of predicting the mean; None where nobody knows it.
        sampler_step: MAE steps before the sampler takes part; None marks nothing.
    """
    plots = []
    for title, meaning, names, axis in _QUESTIONS:
        lines = [Line(label, *series(metrics, name)) for label, name in names.items()]
        more = dict(axis)
        if "mae/loss" in names.values() and plateau is not None:
            more["level"] = plateau, f"predicting the mean: {three(plateau)}"
        mark = (float(sampler_step), "sampler starts") if sampler_step else None
        if any(line.steps for line in lines):
            plots.append(Plot(title=title, meaning=meaning, lines=lines, mark=mark, **more))
    return plots


def curves_over_each_other(runs: Mapping[str, Sequence[Record]]) -> list[Plot]:
    """One plot per metric with a line for each run by its name; metrics of no run are left out."""
    axes = {name: question.axis for question in _QUESTIONS for name in question.lines.values()}
    axes["data/clips_per_s"] = {"span": (0.0, 0.0)}
    plots = []
    for name, title in _COMPARED.items():
        lines = [Line(run, *series(records, name)) for run, records in runs.items()]
        if any(line.steps for line in lines):
            meaning = GLOSSARY[name].replace("`", "")
            plots.append(Plot(title=title, meaning=meaning, lines=lines, **axes[name]))
    return plots
