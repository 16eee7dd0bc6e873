"""The pages that runs end in: the report of one, and the comparison of several."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tats_ray.view.curves import (
    DARK,
    LIGHT,
    PLATEAU,
    Theme,
    curves_of,
    curves_over_each_other,
)
from tats_ray.view.glossary import GLOSSARY
from tats_ray.view.health import Light, Verdict, examine
from tats_ray.view.page.plots import Plot, plot_html
from tats_ray.view.page.shell import page_html, section, table, write_page
from tats_ray.view.page.viewer import Viewing, viewer_html
from tats_ray.view.records import Record, sampler_start, without_stub

REPORT_FILE = "report.html"
_PICTURE_BYTES = 900_000
"""A picture that is larger stays beside the page, which is to be small."""

_LIGHTS: Mapping[Light, str] = {
    "good": "good",
    "watch": "watch it",
    "bad": "not healthy",
    "unknown": "not measured",
}


def write_report(
    path: Path,
    *,
    title: str,
    summary: Sequence[tuple[str, str, str]],
    metrics: Sequence[Record],
    viewing: Viewing | None,
    unseen: str = "",
    picture: tuple[str, Path, Path] | None = None,
    config_yaml: str,
    next_commands: Sequence[str],
    bad_videos: Mapping[str, str] | None = None,
    about: Sequence[tuple[str, str]] = (),
    plateau: float | None = PLATEAU,
    sampler_step: int | None = None,
    num_visible: int,
    num_tokens: int,
) -> Path:
    """Write the report of a run as one file that needs no other.

    Args:
        summary: the headline figures: what, value, and what it means in plain language.
        metrics: as `tracking.read_metrics` gives them.
        viewing: the clips to scrub through.
        unseen: why there are none, a sentence.
        picture: caption of a mask picture, and its PNGs for light and dark pages.
        bad_videos: as `tracking.read_bad_videos` gives them.
        about: what and value of when, where and by which code the run was made.
        plateau: reconstruction error of predicting the mean; None where it has no fixed value.
        sampler_step: MAE steps before the sampler takes part; default: where the first policy
            metrics were recorded.
        num_visible, num_tokens: tokens shown, and tokens of a clip.

    Raises:
        UsageError: when it cannot be written.
    """
    start = sampler_start(metrics) if sampler_step is None else sampler_step
    metrics = without_stub(metrics)
    verdicts = examine(metrics, bad_videos, num_visible=num_visible, num_tokens=num_tokens)
    plots = curves_of(metrics, plateau=plateau, sampler_step=start)
    sections = [
        _summary(summary),
        section("Is it healthy?", _health(verdicts)),
        section("What the sampler looks at", _clips(viewing, unseen) + _picture(picture)),
        section("Curves", _curves(plots)),
        section("What next", _commands(next_commands)),
        section("What the numbers mean", _glossary(metrics)),
        section("About this run", _about(about)),
        section("Configuration", _config(config_yaml)),
    ]
    return write_page(path, _page(title, sections))


def write_comparison(
    path: Path,
    *,
    title: str,
    notes: Sequence[str],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    metrics: Mapping[str, Sequence[Record]],
    viewing: Viewing | None,
    unseen: str = "",
    next_commands: Sequence[str],
) -> Path:
    """Write a page about several runs.

    Args:
        notes: what makes them hard to compare, a sentence each.
        head, rows: the table of final figures, a row for each run.
        metrics: records of each run, by its name.
        viewing, unseen: as for `write_report`.

    Raises:
        UsageError: when it cannot be written.
    """
    metrics = {run: without_stub(records) for run, records in metrics.items()}
    sections = [
        section("Final figures", _notes(notes) + table(head, rows)),
        section("The same clips", _clips(viewing, unseen)),
        section("Curves", _curves(curves_over_each_other(metrics))),
        section("What next", _commands(next_commands)),
    ]
    return write_page(path, _page(title, sections))


def _page(title: str, sections: Sequence[str]) -> str:
    more = ("#8f4fc4", "#a67c00", "#00838f", "#c2387b", "#5f6b76")
    more_in_the_dark = ("#b98ae6", "#d3a72c", "#3fb6c3", "#ec7db1", "#9aa7b3")
    return page_html(
        title,
        sections,
        light=_colours(LIGHT, more) + "--page:#f7f6f2;--good:#17743e;--watch:#8a5a00;--bad:#b8302a",
        dark=_colours(DARK, more_in_the_dark)
        + "--page:#121211;--good:#4fc07f;--watch:#e0a63c;--bad:#ef7269",
    )


def _colours(theme: Theme, more: Sequence[str]) -> str:
    named = {"surface": theme.surface, "ink": theme.ink, "muted": theme.muted, "line": theme.grid}
    named |= {f"s{number}": colour for number, colour in enumerate((*theme.series, *more))}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul>' * bool(notes)


def _clips(viewing: Viewing | None, unseen: str) -> str:
    if viewing is None:
        return f'<p class="note">{escape(unseen)}</p>' if unseen else ""
    return viewer_html(viewing)


def _summary(rows: Sequence[tuple[str, str, str]]) -> str:
    tiles = [
        f'<div class="tile"><dt>{escape(what)}</dt>'
        f"<dd><b>{escape(value)}</b><span>{escape(meaning)}</span></dd></div>"
        for what, value, meaning in rows
    ]
    return f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""


def _health(verdicts: Sequence[Verdict]) -> str:
    # The light is also given in words: not everyone sees colours.
    rows = [
        f'<li class="{verdict.light}"><i></i><div><strong>{escape(verdict.question)}</strong> '
        f"<em>{_LIGHTS[verdict.light]}</em><p>{escape(verdict.answer)}</p></div></li>"
        for verdict in verdicts
    ]
    return f'<ul class="health">{"".join(rows)}</ul>'


def _picture(picture: tuple[str, Path, Path] | None) -> str:
    """One clip at a glance, also for readers without scripts and for printers."""
    if picture is None:
        return ""
    words = escape(picture[0])
    light, dark = (path.read_bytes() for path in picture[1:])
    if len(light) + len(dark) > _PICTURE_BYTES:
        return f'<p class="note">All views of {words} at a glance: {escape(str(picture[1]))}</p>'
    width = round(0.68 * int.from_bytes(light[16:20], "big"))  # of a PNG's header, in pixels
    return (
        '<figure class="masks"><p class="hint">Swipe sideways to see the whole picture.</p>'
        '<div tabindex="0" role="group" aria-label="All views at a glance"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data_uri(dark)}">'
        f'<img src="{_data_uri(light)}" style="max-width:{width}px" '
        f'alt="Frames, reconstruction, error, sampling probability and masks of {words}">'
        f"</picture></div><figcaption>All views of {words} at a glance</figcaption></figure>"
    )


def _curves(plots: Sequence[Plot]) -> str:
    return f'<div class="curves">{"".join(map(plot_html, plots))}</div>' if plots else ""


def _commands(commands: Sequence[str]) -> str:
    return "".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands)


def _glossary(metrics: Sequence[Record]) -> str:
    recorded = {name for record in metrics for name in record}
    rows = [
        f"<dt><code>{escape(name)}</code></dt><dd>{_with_code(meaning)}</dd>"
        for name, meaning in GLOSSARY.items()
        if name in recorded
    ]
    return f'<dl class="glossary">{"".join(rows)}</dl>' if rows else ""


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _about(rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in rows]
    return f'<dl class="glossary">{"".join(lines)}</dl>' if lines else ""


def _config(config_yaml: str) -> str:
    if not config_yaml.strip():
        return ""
    return (
        "<details><summary>All settings of this run</summary>"
        f"<pre><code>{escape(config_yaml)}</code></pre></details>"
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
