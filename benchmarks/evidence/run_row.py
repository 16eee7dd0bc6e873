"""One row from its videos to its file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tats_ray.config.differences import deciding, flat
from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.atari.atari_set import make_atari
from tats_ray.data.synthetic import synthesize

from . import measuring
from .plan import TASKS, StudyRow, StudyTask
from .row_files import ROOT, Finished, code_digest, made_here
from .training import train

DATA = ROOT / "data" / "evidence"
RUNS = ROOT / "runs" / "evidence"


def make_videos(name: str, videos: Mapping[str, Any]) -> Path:
    """The data set of a task, made where it is not there yet."""
    folder = DATA / name
    if "game" in videos:
        make_atari(folder, **videos)
    else:
        synthesize(folder, **videos)
    return folder


def config_of(row: StudyRow, task: StudyTask | None = None) -> RunConfig:
    """Everything that its training is configured with."""
    tree: dict[str, Any] = {}
    for name, value in row.fields(task).items():
        *branches, leaf = name.split(".")
        place = tree
        for branch in branches:
            place = place.setdefault(branch, {})
        place[leaf] = value
    data = tree["data"]
    for split in ("train", "val"):
        data[f"{split}_list"] = str(DATA / row.task / f"{split}.csv")
    return parse_config(tree, source=f"row {row.name}")


def settings_of(row: StudyRow) -> dict[str, Any]:
    """What decides a row's numbers: the fields of its run, without places, and its videos."""
    config = config_of(row)
    fields = {**deciding(asdict(config)), **flat({"eval": asdict(config.eval)})}
    kept = {name: value for name, value in fields.items() if not name.endswith("_list")}
    videos = {f"videos.{name}": value for name, value in TASKS[row.task].videos.items()}
    return {**kept, **videos}


def run_row(row: StudyRow, folder: Path) -> None:
    """Train, measure, and write the file; of a failure as well, before it is raised.

    A row that was interrupted begins anew: rows take minutes.
    """
    begun = Finished(row, settings_of(row), code_digest(), origin=made_here())
    run = RUNS / row.name
    shutil.rmtree(run, ignore_errors=True)
    try:
        results = results_of(row, run)
    except Exception as error:
        replace(begun, failed=f"{type(error).__name__}: {error}").write(folder)
        raise
    finally:
        shutil.rmtree(run / "features", ignore_errors=True)
    if begun.code != code_digest():
        raise UsageError(f"the code changed while row {row.name} ran; run it again")
    replace(begun, results=results).write(folder)


def results_of(row: StudyRow, run: Path) -> dict[str, float]:
    """Every measure of a row by name; the same row gives the same digits on the same machine."""
    task = TASKS[row.task]
    data = make_videos(row.task, task.videos)
    found = train(config_of(row), run, is_trained=row.arm != "untrained")
    if task.probes == "states":
        found |= measuring.states(run, data)
    elif task.probes == "classes":
        found |= measuring.classes(run, data, row.seed)
    return found
