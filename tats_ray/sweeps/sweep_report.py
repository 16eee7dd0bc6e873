"""`tats tune report`: a sweep's outcome beside the paper's numbers."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tats_ray.config.load import dump_config, parse_config, read_yaml
from tats_ray.config.points import Point, Trial
from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.ops.ranks import binned
from tats_ray.sweeps.sweep_board import say
from tats_ray.sweeps.sweep_table import MEASURES, Table, importance, read_table
from tats_ray.view.sweep_figures import Bar, draw_bars, draw_heat
from tats_ray.view.tables import print_table

_MOST_ROWS = 40
_WORDS = {
    "train_error": "mean reconstruction error of the last twentieth of the steps, under the masks "
    "used in training, as in the paper. It cannot compare samplers or mask ratios",
    "val_error": "reconstruction error of the validation clips under one random mask that never "
    "changes",
    "knn": "share of validation videos whose nearest training videos, by frozen features, have "
    "the same class",
}


def tune_report(experiment: Path, out: Path | None = None) -> Path:
    """Print the table, and write report, pictures, table.csv and best.yaml into the sweep's folder.

    Args:
        out: folder that gets copies of the report and its pictures, under the sweep's name.

    Raises:
        UsageError: where there is no sweep, or nothing of it has finished.
    """
    table = read_table(experiment)
    if table.best() is None:
        raise UsageError(f"{experiment} has no finished trial yet; continue with --resume")
    head, cells = _cells(table)
    print_table(head, cells, title=_title(table, experiment))
    for line in _findings(table):
        print(line)
    pictures = _draw(table, experiment)
    _write_csv(experiment / "table.csv", table)
    best = _write_best(table, experiment)
    report = experiment / "report.md"
    report.write_text(_markdown(table, experiment, head, cells, pictures))
    if out is not None:
        report = _copy(report, pictures, out, experiment.resolve().name)
    say("best", f"tats pretrain {best}")
    say("report", str(report))
    return report


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The columns that say something; the best of ours and the paper's are starred."""
    rows = table.rows if any(row.paper for row in table.rows) else table.ranked()
    hidden = [row for row in table.rows if row not in rows]
    rows = [*rows, *hidden][:_MOST_ROWS]
    measures = [m for m in MEASURES if any(row.measured(m) for row in rows)]
    has_paper = any(row.paper for row in rows)
    has_state = any(row.state or row.note for row in rows)
    head = ["", *(["paper"] if has_paper else []), *(MEASURES[m] for m in measures), "seeds"]
    cells = []
    for row in rows:
        line = [f"{row.name} *" if row is table.best() else row.name]
        if has_paper:
            star = " *" if row is table.paper_best() else ""
            line.append((" and ".join(f"{value:.4f}" for value in row.paper) or "-") + star)
        line += [row.cell(measure) for measure in measures]
        line.append(str(len(row.measured(table.metric))))
        if has_state:
            line.append("; ".join(filter(None, [row.state, row.note])))
        cells.append(line)
    return head + [""] * has_state, cells


def _title(table: Table, experiment: Path) -> str:
    sweep = table.state["settings"]["sweep"]
    return f"{sweep['title'] or experiment.name}; * best {MEASURES[table.metric]}"


def _findings(table: Table) -> list[str]:
    """What the table says, in sentences."""
    found = []
    if any(row.paper for row in table.rows):
        for measure, name in MEASURES.items():
            rho, tau, count = table.correlations(measure)
            if not math.isnan(rho):
                better = " (negated, as more is better)" if measure == "knn" else ""
                found.append(
                    f"Rank correlation of {name}{better} with the paper: Spearman {rho:+.2f}, "
                    f"Kendall {tau:+.2f}, over {counted(count, 'row')}."
                )
        twice = [row.name for row in table.rows if len(row.paper) > 1]
        if twice:
            found.append(
                f"The paper prints {', '.join(twice)} twice, with different values; it ran "
                "once and is left out of the correlation."
            )
    for name, share in importance(table).items():
        found.append(f"{name} explains {share:.0%} of the variance of {MEASURES[table.metric]}.")
    seeds = {len(row.measured(table.metric)) for row in table.ranked()}
    if max(seeds) < 2:
        found.append("One seed each: differences of this size may be chance.")
    return found


def _draw(table: Table, experiment: Path) -> list[Path]:
    sign = 100 if table.metric == "knn" else 1
    rows = table.rows if any(row.paper for row in table.rows) else table.ranked()
    bars = [
        Bar(
            row.name,
            row.paper,
            sign * row.mean(table.metric),
            sign * row.spread(table.metric),
            is_best=row is table.best(),
        )
        for row in rows[:_MOST_ROWS]
    ]
    bars_png = experiment / "bars.png"
    draw_bars(bars, bars_png, ours=MEASURES[table.metric], title=_title(table, experiment))
    fields = list(importance(table))[:2]
    if len(fields) < 2:
        return [bars_png]
    ranked = table.ranked()
    (down, downs), (across, acrosses) = (
        binned([row.values[name] for row in ranked]) for name in fields
    )
    cells = np.full((len(downs), len(acrosses)), math.nan)
    for i in range(len(downs)):
        for j in range(len(acrosses)):
            both = zip(ranked, down, across, strict=True)
            here = [row.mean(table.metric) for row, a, b in both if (a, b) == (i, j)]
            if here:
                cells[i, j] = sign * float(np.mean(here))
    heat_png = experiment / "heat.png"
    draw_heat(
        cells,
        heat_png,
        names=(fields[0], fields[1]),
        labels=(downs, acrosses),
        title=f"mean {MEASURES[table.metric]}",
        is_best_lowest=table.is_best_lowest,
    )
    return [bars_png, heat_png]


def _write_csv(path: Path, table: Table) -> None:
    names = list(dict.fromkeys(name for row in table.rows for name in row.values))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", *names, "seed", "status", "reason", "epochs", *MEASURES, "paper"])
        for row in table.rows:
            values = [row.values.get(name, "") for name in names]
            paper = " ".join(map(str, row.paper))
            for r in row.records:
                measures = [r.measures.get(measure, "") for measure in MEASURES]
                about = [r.seed, r.status, r.reason, r.epochs]
                writer.writerow([row.name, *values, *about, *measures, paper])


def _write_best(table: Table, experiment: Path) -> Path:
    """The best point's first seed, as a configuration of its own."""
    row = table.best()
    assert row is not None  # asked before
    record = min((r for r in row.records if r.status == "finished"), key=lambda r: r.seed)
    folder = experiment / "trials" / Trial(record.name, Point("", {}), 0).folder
    config = parse_config(read_yaml(folder / "config.yaml"), source=str(folder / "config.yaml"))
    base = table.state["settings"]["base"]
    config = replace(
        config,
        name=f"{experiment.resolve().name}_best",
        checkpoint=replace(config.checkpoint, folder=base["checkpoint"]["folder"]),
        cluster=replace(config.cluster, address=base["cluster"]["address"]),
    )
    path = experiment / "best.yaml"
    path.write_text(dump_config(config))
    return path


def _markdown(
    table: Table,
    experiment: Path,
    head: Sequence[str],
    cells: Sequence[Sequence[str]],
    pictures: Sequence[Path],
) -> str:
    state, sweep = table.state, table.state["settings"]["sweep"]
    lines = [f"# {sweep['title'] or experiment.name}", ""]
    if sweep["synthetic"]:
        lines += [
            "Synthetic videos, a few minutes: this shows that the sweep works, and says nothing "
            "about UCF101 or HMDB51. The sweeps in tune_configs/sweep_table*.yaml use those "
            "data sets.",
            "",
        ]
    wide = [list(head), ["---"] * len(head), *map(list, cells)]
    lines += [f"| {' | '.join(line)} |" for line in wide]
    lines += ["", f"\\* best {MEASURES[table.metric]}, ours and the paper's.", ""]
    lines += [f"- {line}" for line in _findings(table)]
    lines += [""] + [f"![{path.stem}]({path.name})" for path in pictures] + [""]
    lines += [f"- {MEASURES[m]}: {words}." for m, words in _WORDS.items()]
    epochs = state["settings"]["base"]["loop"]["epochs"]
    about = {
        "command": f"`{state['command']}`",
        "commit": state.get("commit", f"version {state['version']}"),
        "started": state["started"],
        "seeds": ", ".join(map(str, sweep["seeds"])),
        "trials at once": state["at_once"],
        "epochs": epochs,
    }
    return "\n".join([*lines, "", *(f"- {k}: {v}" for k, v in about.items()), ""])


def _copy(report: Path, pictures: Sequence[Path], out: Path, name: str) -> Path:
    """Beside those of other sweeps, so under names of its own."""
    out.mkdir(parents=True, exist_ok=True)
    text = report.read_text()
    for picture in pictures:
        shutil.copy(picture, out / f"{name}_{picture.name}")
        text = text.replace(f"({picture.name})", f"({name}_{picture.name})")
    (out / f"{name}.md").write_text(text)
    return out / f"{name}.md"
