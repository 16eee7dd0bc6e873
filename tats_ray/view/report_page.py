"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tats_ray.view.curves import DARK, LIGHT, PLATEAU, Curve, Theme, draw_curves
from tats_ray.view.glossary import GLOSSARY
from tats_ray.view.health import Light, Verdict, examine
from tats_ray.view.records import Record, sampler_start, without_stub

REPORT_FILE = "report.html"

_LIGHTS: Mapping[Light, str] = {
    "good": "good",
    "watch": "watch it",
    "bad": "not healthy",
    "unknown": "not measured",
}


def write_report(
    run: Path,
    *,
    title: str,
    summary: Sequence[tuple[str, str, str]],
    metrics: Sequence[Record],
    pictures: Sequence[tuple[str, Path, Path]],
    config_yaml: str,
    next_commands: Sequence[str],
    bad_videos: Mapping[str, str] | None = None,
    about: Sequence[tuple[str, str]] = (),
    plateau: float | None = PLATEAU,
    sampler_step: int | None = None,
    num_visible: int,
    num_tokens: int,
) -> Path:
    """Write `<run>/report.html`.

    Args:
        summary: the headline figures: what, value, and what it means in plain language.
        metrics: as `tracking.read_metrics` gives them.
        pictures: caption of each mask picture, and its PNGs for light and dark pages.
        bad_videos: as `tracking.read_bad_videos` gives them.
        about: what and value of when, where and by which code the run was made.
        plateau: reconstruction error of predicting the mean; None where it has no fixed value.
        sampler_step: MAE steps before the sampler takes part; default: where the first policy
            metrics were recorded.
        num_visible, num_tokens: tokens shown, and tokens of a clip.
    """
    start = sampler_start(metrics) if sampler_step is None else sampler_step
    metrics = without_stub(metrics)
    verdicts = examine(metrics, bad_videos, num_visible=num_visible, num_tokens=num_tokens)
    sections = [
        _summary(summary),
        _section("Is it healthy?", _health(verdicts)),
        _section("What the sampler looks at", "".join(_picture(*pair) for pair in pictures)),
        _section("Curves", _curves(draw_curves(metrics, plateau=plateau, sampler_step=start))),
        _section("What next", _commands(next_commands)),
        _section("What the numbers mean", _glossary(metrics)),
        _section("About this run", _about(about)),
        _section("Configuration", _config(config_yaml)),
    ]
    page = _PAGE.format(title=escape(title), style=_style(), body="\n".join(filter(None, sections)))
    path = run / REPORT_FILE
    path.write_text(page, encoding="utf-8")
    return path


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


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


def _picture(caption: str, light: Path, dark: Path) -> str:
    words = escape(caption)
    png = light.read_bytes()
    width = round(0.68 * int.from_bytes(png[16:20], "big"))  # of a PNG's header, in pixels
    return (
        '<figure class="masks"><p class="hint">Swipe sideways to see the whole picture.</p>'
        f"<div><picture>{_dark_source(dark.read_bytes())}"
        f'<img src="{_data_uri(png)}" style="max-width:{width}px" '
        f'alt="Frames, reconstruction, error, sampling probability and masks of {words}">'
        f"</picture></div><figcaption>{words}</figcaption></figure>"
    )


def _dark_source(png: bytes) -> str:
    return f'<source media="(prefers-color-scheme: dark)" srcset="{_data_uri(png)}">'


def _curves(curves: Sequence[Curve]) -> str:
    figures = [
        f"<figure><h3>{escape(curve.title)}</h3>{_legend(curve)}<picture>"
        f"{_dark_source(curve.dark)}"
        f'<img src="{_data_uri(curve.light)}" alt="{escape(curve.title)} over MAE steps"></picture>'
        f"<figcaption>{escape(curve.meaning)}</figcaption></figure>"
        for curve in curves
    ]
    return f'<div class="curves">{"".join(figures)}</div>' if figures else ""


def _legend(curve: Curve) -> str:
    names = [
        f'<span><i class="s{number}"></i>{escape(name)}</span>'
        for number, name in enumerate(curve.legend)
    ]
    return f'<p class="legend">{"".join(names)}</p>'


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


def _style() -> str:
    return (
        f":root{{{_colours(LIGHT)}--page:#f7f6f2;--good:#1f8a4c;--watch:#b87700;--bad:#c73a32}}"
        f"@media (prefers-color-scheme: dark){{:root{{{_colours(DARK)}"
        f"--page:#121211;--good:#4fc07f;--watch:#e0a63c;--bad:#ef7269}}}}{_STYLE}"
    )


def _colours(theme: Theme) -> str:
    named = {"surface": theme.surface, "ink": theme.ink, "muted": theme.muted, "line": theme.grid}
    named |= {f"s{number}": colour for number, colour in enumerate(theme.series)}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1></header>
{body}
</main>
</body>
</html>
"""

_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:2rem 1.1rem 4rem}
h1{font-size:1.55rem;line-height:1.25;margin:0 0 1.2rem}
h2{font-size:1.15rem;margin:2.4rem 0 .8rem}
h3{font-size:.95rem;margin:0}
p,dl,dd,ul,figure{margin:0;padding:0}
code,pre{font:.84rem/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,monospace}
figcaption,.tile span,.health p,.legend{color:var(--muted);font-size:.86rem}
.tile,figure,.health,.glossary,details,pre{background:var(--surface);border:1px solid var(--line);
border-radius:10px}
.tiles{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr))}
.tile{padding:.9rem 1rem}
.tile dt{color:var(--muted);font-size:.86rem}
.tile b{display:block;font-size:1.4rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tile span{display:block;margin-top:.25rem}
.health{list-style:none}
.health li{display:flex;gap:.8rem;padding:.7rem 1rem;border-top:1px solid var(--line)}
.health li:first-child{border-top:0}
.health li>i{flex:none;width:.8rem;height:.8rem;margin-top:.36rem;border-radius:50%;
background:var(--light);border:2px solid var(--light)}
.health em{font-style:normal;font-size:.86rem;color:var(--light);margin-left:.35rem}
.good{--light:var(--good)}.watch{--light:var(--watch)}.bad{--light:var(--bad)}
.unknown{--light:var(--muted)}.health .unknown>i{background:none}
.curves{display:grid;gap:.9rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
figure{padding:.9rem 1rem}
img{display:block;width:100%;height:auto}
.legend{display:flex;gap:1rem;min-height:1.3rem}
.legend i{display:inline-block;width:.9rem;height:.25rem;border-radius:2px;margin-right:.4rem;
vertical-align:middle}
.s0{background:var(--s0)}.s1{background:var(--s1)}.s2{background:var(--s2)}
figcaption{margin-top:.5rem}
.masks{margin-bottom:.9rem}
.masks div{overflow-x:auto;border-radius:6px}
.hint{display:none;color:var(--muted);font-size:.86rem;margin-bottom:.4rem}
.masks img{min-width:500px;margin:0 auto}
.glossary{padding:.4rem 1rem 1rem;display:grid;grid-template-columns:minmax(0,15rem) 1fr;
column-gap:1rem}
.glossary dt,.glossary dd{padding-top:.6rem;overflow-wrap:anywhere}
details{padding:.8rem 1rem}
summary{cursor:pointer}
pre{padding:.7rem 1rem;margin:.5rem 0;overflow-x:auto}
details pre{border:0;padding:.4rem 0}
@media (max-width:560px){.glossary{display:block}.glossary dd{padding-top:.1rem}
section>pre{white-space:pre-wrap;overflow-wrap:anywhere}
.hint{display:block}.masks div{border-right:3px solid var(--s0)}
main{padding-top:1.2rem}}
"""
