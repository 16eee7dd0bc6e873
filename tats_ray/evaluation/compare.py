"""`tats compare`: do runs with different settings differ by more than their seeds do?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from tats_ray.config.differences import deciding, flat
from tats_ray.config.load import read_yaml
from tats_ray.config.paths import LISTS
from tats_ray.config.schema import SamplerConfig
from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError, did_you_mean
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.models.zoo import num_visible
from tats_ray.ops.statistics import can_claim, interquartile_mean, interval, resampled_means
from tats_ray.view.progress import format_duration
from tats_ray.view.records import series
from tats_ray.view.tables import print_table
from tats_ray.view.tracking import METRICS_FILE, read_metrics

BETTER = {
    "eval/error": "lower",
    "mae/loss": "lower",
    "policy/value_loss": "lower",
    "eval/motion_ratio": "higher",
    "eval/motion_auc": "higher",
    "policy/explained_variance": "higher",
    "data/clips_per_s": "higher",
}
"""Which way is better, where one is; other metrics are only told apart."""

_VALIDATION = ("data.val_list", "eval.num_clips", "data.num_frames", "data.image_size",
               "data.stride", "model.tubelet", "model.patch", "sampler.mask_ratio")  # fmt: skip
"""Fields that decide which clips the metrics of eval/ are measured on, and under which masks."""

_PATHS = (*LISTS, "init", "start")
"""Deciding fields that another working directory or machine writes otherwise."""
_LETTERS = [
    *ascii_uppercase,
    *(f"{one}{two}" for one in ascii_uppercase for two in ascii_uppercase),
]


@dataclass(frozen=True)
class Run:
    """One run folder, as far as it is compared."""

    folder: Path
    settings: dict[str, Any]
    """Every field, flat."""
    steps: list[float]
    """Where the metric was measured."""
    values: list[float]
    wall_s: float
    """From the first record to the last."""
    videos: dict[str, str] = field(default_factory=dict)
    """Digest of what is in each list: paths below its root, and labels."""

    def value_at(self, step: float) -> float:
        """The last value up to `step`; NaN before the first."""
        past = [v for s, v in zip(self.steps, self.values, strict=True) if s <= step]
        return past[-1] if past else float("nan")


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed."""

    letter: str
    settings: dict[str, Any]
    """The fields that change results, without the seed."""
    runs: list[Run]

    def values(self, step: float) -> Float[np.ndarray, " S"]:
        return np.array([run.value_at(step) for run in self.runs])

    def summary(self, step: float) -> str:
        """Interquartile mean and interval of the values at `step`."""
        values = self.values(step)
        if np.isnan(values).any():
            return "-"
        centre = f"{interquartile_mean(values):.3g}"
        if len(values) == 1:
            return centre
        low, high = interval(resampled_means(values, self.letter))
        return f"{centre} [{low:.3g}, {high:.3g}]"

    @property
    def names(self) -> str:
        names = [run.folder.name for run in self.runs]
        return " ".join(names if len(names) < 4 else [names[0], "...", names[-1]])


def compare(folders: Sequence[Path], metric: str = "eval/error") -> None:
    """Print groups, what differs between them, and a verdict for each pair.

    Raises:
        UsageError: for a folder that is no run, a metric that was not measured, runs that were
            measured on other clips, and a run that is there twice.
    """
    if not folders:
        raise UsageError("compare needs run folders; use tats compare RUN RUN ...")
    runs = [_read(folder, metric) for folder in folders]
    _unify_paths(runs)
    if metric.startswith("eval/"):
        _check_validation(runs, metric)
    groups = _grouped(runs)
    last = [run.steps[-1] for run in runs]
    step = min(last)
    _print_groups(groups, metric, None if step == max(last) else step)
    for line in _differing(groups):
        print(line)
    if metric.startswith("eval/") and len({_num_shown(group.settings) for group in groups}) > 1:
        print(
            "note: tube and frame masks show whole tubes or frames, so these are measured with "
            "more tokens"
        )
    for line in verdicts(groups, metric, step):
        print(line)


def verdicts(groups: Sequence[RunGroup], metric: str, step: float) -> Iterator[str]:
    """One line for each pair of groups, at a step that all runs have reached."""
    if len(groups) == 1:
        yield "Only one configuration: add runs of another one to compare."
    for first, second in combinations(groups, 2):
        yield f"{first.letter} and {second.letter}: {_verdict(first, second, metric, step)}"


def _verdict(first: RunGroup, second: RunGroup, metric: str, step: float) -> str:
    one, other = first.values(step), second.values(step)
    counts = f"{len(one)} and {counted(len(other), 'seed')}"
    if np.isnan(one).any() or np.isnan(other).any():
        return f"no step at which all runs have {metric}: no claim"
    if len(one) == len(other) == 1:
        return "one seed each: no claim"
    gap = float(interquartile_mean(one) - interquartile_mean(other))
    low, high = interval(resampled_means(one, first.letter) - resampled_means(other, second.letter))
    found = f"difference {gap:+.3g} [{low:+.3g}, {high:+.3g}]"
    if low <= 0 <= high:
        return f"no clear difference ({found}, {counts})"
    if not can_claim(len(one), len(other)):
        return f"too few seeds for a claim ({found}, {counts}; 4 and 4 would do)"
    lower, higher = (first, second) if gap < 0 else (second, first)
    if metric not in BETTER:
        return f"{higher.letter} has more {metric} ({found}, {counts})"
    better = lower if BETTER[metric] == "lower" else higher
    return f"{better.letter} is better: {BETTER[metric]} {metric} ({found}, {counts})"


def _read(folder: Path, metric: str) -> Run:
    if not (folder / "config.yaml").is_file() or not (folder / METRICS_FILE).is_file():
        raise UsageError(
            f"{folder} is not a run: it lacks config.yaml or {METRICS_FILE}; give a folder that "
            "`tats pretrain` made, such as runs/NAME"
        )
    records = read_metrics(folder)
    steps, values = series(records, metric)
    if not steps:
        known = sorted({name for record in records for name in record if "/" in name})
        hint = did_you_mean(metric, known)
        raise UsageError(f"{folder} has no metric {metric!r}{hint}; it has {', '.join(known)}")
    wall_s = records[-1]["time"] - records[0]["time"]
    settings = flat(read_yaml(folder / "config.yaml"))
    return Run(folder, settings, steps, values, wall_s, list_digests(folder / "videos.json"))


def list_digests(path: Path) -> dict[str, str]:
    """Digest of what is in each list of a run, from its `videos.json`; empty where it has none."""
    if not path.is_file():  # a run of version 0.1
        return {}
    listed = json.loads(path.read_text())
    return {
        f"data.{name}": sha256(json.dumps(videos["entries"]).encode()).hexdigest()[:12]
        for name, videos in listed.items()
    }


def _unify_paths(runs: Sequence[Run]) -> None:
    """Write a path as the first run that has the same writes it, and no other path so."""
    for name in _PATHS:
        firsts: list[tuple[Run, str]] = []
        for run in sorted(runs, key=lambda run: name not in run.videos):  # the certain ones first
            if not (path := str(run.settings.get(name) or "")):
                continue
            same = (first for first, there in firsts if _is_same(run, path, first, there, name))
            first = next(same, None)
            if first is not None:
                run.settings[name] = first.settings[name]
                continue
            if any(path == there for _, there in firsts):
                run.settings[name] = f"{path} ({run.videos[name]})"
            firsts.append((run, path))


def _is_same(one: Run, path: str, other: Run, there: str, name: str) -> bool:
    """By what is in a list where both runs know it, or else by the end of its path."""
    if name in one.videos and name in other.videos:
        return one.videos[name] == other.videos[name]
    short, long = sorted((os.path.normpath(path), os.path.normpath(there)), key=len)
    return short == long or long.endswith(f"/{short}")


def _check_validation(runs: Sequence[Run], metric: str) -> None:
    first = runs[0]
    for run in runs[1:]:
        for name in _VALIDATION:
            one, other = first.settings.get(name), run.settings.get(name)
            if one != other:
                raise UsageError(
                    f"{metric} of {first.folder} and {run.folder} is measured on different "
                    f"validation clips or masks: {name} is {one!r} and {other!r}; "
                    "compare runs that agree in it, or use another metric"
                )


def _num_shown(settings: Mapping[str, Any]) -> int:
    """Tokens that the metrics of eval/ are measured with."""
    name = "sampler.options."
    options = {k.removeprefix(name): v for k, v in settings.items() if k.startswith(name)}
    sampler = SamplerConfig(name=settings["sampler.name"], options=options)
    grid = TokenGrid(
        num_frames=settings["data.num_frames"],
        image_size=settings["data.image_size"],
        tubelet=settings["model.tubelet"],
        patch=settings["model.patch"],
    )
    ratio = settings["sampler.mask_ratio"]
    try:
        return num_visible(sampler, grid, ratio)
    except UsageError:  # its package is not on this machine, and need not be
        return grid.num_visible(ratio)


def _grouped(runs: Sequence[Run]) -> list[RunGroup]:
    groups: list[RunGroup] = []
    for run in runs:
        settings = {k: v for k, v in deciding(run.settings).items() if k != "seed"}
        group = next((group for group in groups if group.settings == settings), None)
        if group is None:
            groups.append(RunGroup(_LETTERS[len(groups)], settings, [run]))
            continue
        seed = run.settings.get("seed")
        twin = next((r for r in group.runs if r.settings.get("seed") == seed), None)
        if twin is not None:
            raise UsageError(
                f"{twin.folder} and {run.folder} have the same settings and the same seed {seed}; "
                "leave one out"
            )
        group.runs.append(run)
    return groups


def _print_groups(groups: Sequence[RunGroup], metric: str, common: float | None) -> None:
    head = ["", "runs", "seeds", "steps", "wall clock", metric]
    head += [] if common is None else [f"at step {common:g}"]
    rows = []
    for group in groups:
        steps = sorted({run.steps[-1] for run in group.runs})
        span = " to ".join(f"{step:g}" for step in (steps[0], steps[-1])[: len(steps)])
        wall_s = interquartile_mean(np.array([run.wall_s for run in group.runs]))
        row = [group.letter, group.names, str(len(group.runs)), span]
        row += [format_duration(float(wall_s)), group.summary(float("inf"))]
        rows.append(row if common is None else [*row, group.summary(common)])
    print_table(head, rows, title="Interquartile mean over seeds [95 % bootstrap interval]")


def _differing(groups: Sequence[RunGroup]) -> Iterator[str]:
    """A line for each field that is not the same in all groups that have it."""
    for name in dict.fromkeys(name for group in groups for name in group.settings):
        values = {g.letter: g.settings[name] for g in groups if name in g.settings}
        if any(value != next(iter(values.values())) for value in values.values()):
            yield f"{name}: {', '.join(f'{letter} {value}' for letter, value in values.items())}"
