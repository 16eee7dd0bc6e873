"""The study's tables, from its rows alone: `docs/evidence.md` holds what these print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tats_ray.core.words import counted
from tats_ray.ops.statistics import can_claim, interquartile_mean, interval, resampled_means

from .plan import ARMS, BASELINE, CHOSEN, GAMES, MAIN, TASKS, Part, StudyRow, by_room, room, rows
from .row_files import CHOICE, FOLDER, Finished, read_rows

Table = Sequence[Sequence[str]]


def part_tables(part: Part, folder: Path = FOLDER) -> str:
    """One table for each task, mask ratio and length of a part, and what is missing from it."""
    wanted, done = list(rows(part)), read_rows(folder)
    places = dict.fromkeys((row.task, row.ratio, row.length) for row in wanted)
    found = []
    for task, ratio, length in places:
        here = [row for row in wanted if (row.task, row.ratio, row.length) == (task, ratio, length)]
        longer = "" if length == 1 else f", {length:g} times the steps"
        found.append(f"**{task}, mask ratio {ratio:g}{longer}**\n\n{_table(task, here, done)}")
    return "\n".join([*found, f"{_missing(wanted, done)}\n"])


def _table(task: str, wanted: Sequence[StudyRow], done: Mapping[str, Finished]) -> str:
    primary, measures = TASKS[task].primary, TASKS[task].measures
    others = [name for name in measures if name != primary]
    head = ["Sampler", "seeds", f"**{primary}**", "less random", *others, "CPU s"]
    # Ablations change TATS, and are told from it; both stand in every table.
    beside = [StudyRow(task, wanted[0].ratio, arm, row.seed, wanted[0].length)
              for arm in (BASELINE, "tats") for row in wanted]  # fmt: skip
    by_arm: dict[str, dict[int, Finished]] = {}
    for row in dict.fromkeys([*beside, *wanted]):
        finished = done.get(row.name)
        if finished is not None and not finished.failed:
            by_arm.setdefault(row.arm, {})[row.seed] = finished
    chance = _values(by_arm.get(BASELINE, {}), primary)
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys(row.arm for row in [*beside, *wanted]):
        found = by_arm.get(arm, {})
        values = _values(found, primary)
        cells = [ARMS[arm][0], str(len(found)), _centre(values, arm)]
        cells += ["" if arm == BASELINE else _less(values, chance, arm)]
        cells += [_centre(_values(found, name), arm, is_short=True) for name in others]
        lines.append([*cells, _centre(_values(found, "cpu_s"), arm, is_short=True)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _values(found: Mapping[int, Finished], name: str) -> np.ndarray:
    return np.array([f.results[name] for f in found.values() if name in f.results])


def _centre(values: np.ndarray, name: str, *, is_short: bool = False) -> str:
    """Interquartile mean, and its interval where there are several seeds."""
    if not len(values):
        return "-"
    centre = f"{float(interquartile_mean(values)):.3g}"
    if is_short or len(values) == 1:
        return centre
    low, high = interval(resampled_means(values, name))
    return f"{centre} [{low:.3g}, {high:.3g}]"


def _less(values: np.ndarray, chance: np.ndarray, name: str) -> str:
    """The difference from random masks, as `tats compare` judges it."""
    if not len(values) or not len(chance):
        return "-"
    gap = float(interquartile_mean(values) - interquartile_mean(chance))
    if min(len(values), len(chance)) == 1:
        return f"{gap:+.3g}, one seed"
    low, high = interval(resampled_means(values, name) - resampled_means(chance, BASELINE))
    shown = f"{gap:+.3g} [{low:+.3g}, {high:+.3g}]"
    if low <= 0 <= high:
        return f"{shown}, not clear"
    return shown if can_claim(len(values), len(chance)) else f"{shown}, too few seeds"


def _missing(wanted: Sequence[StudyRow], done: Mapping[str, Finished]) -> str:
    """What is not in the tables, failed rows by name, and of how many codes and machines it is."""
    there = [done[row.name] for row in wanted if row.name in done]
    failed = [f for f in there if f.failed]
    good = [f for f in there if not f.failed]
    words = [f"{len(good)} of {counted(len(wanted), 'row')} are run."]
    words += [f"Failed: `{f.row.name}` ({f.failed})." for f in failed]
    words += _kinds("code", (f.code for f in good))
    words += _kinds("machine", (f.origin.get("machine", "unknown") for f in good))
    return " ".join(words)


def _kinds(what: str, found: Iterable[str]) -> list[str]:
    kinds = sorted(set(found))
    return [f"They come from {counted(len(kinds), what)}: {'; '.join(kinds)}."] if kinds else []


def arms_table() -> str:
    """Every arm, what it is, and the fields that it sets; of variants of TATS, what they change."""
    lines = [["Name", "What it is", "Fields"], ["---"] * 3]
    tats = ARMS["tats"][1]
    for name, (words, fields) in ARMS.items():
        is_variant = fields is not tats and fields.keys() >= tats.keys()
        own = {f: v for f, v in fields.items() if not is_variant or tats.get(f) != v}
        shown = ", ".join(f"`{field}` = `{value}`" for field, value in own.items())
        shown = "as `tats`, but " * is_variant + shown
        lines.append([f"`{name}`{' (main)' if name in MAIN else ''}", words, shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def choice_table(path: Path = CHOICE) -> str:
    """What chooses the two games; lines say what is missing, and where the plan has others."""
    if not path.is_file():
        return "Not measured yet.\n"
    games = json.loads(path.read_text())["games"]
    lines = [["Game", "values", "true states", "pixels", "untrained", "room"], ["---"] * 6]
    for game in by_room(games):
        found = games[game]
        cells = [f"{found[name]:.2f}" for name in ("states", "pixels", "untrained")]
        lines.append([game, f"{found['values']:g}", *cells, f"{room(found):.2f}"])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if missing := [game for game in GAMES if game not in games]:
        table += f"\nNot measured yet: {', '.join(missing)}.\n"
    if set(by_room(games)[:2]) != set(CHOSEN):
        table += f"\nThe plan has {', '.join(CHOSEN)}.\n"
    return table
