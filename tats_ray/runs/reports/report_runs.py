"""`tats report`: the page of one run once more, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tats_ray.checkpoints.fine_tuned import is_fine_tuned
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.config.load import load_config
from tats_ray.config.paths import is_run_folder
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.folder_lock import holder_in_words
from tats_ray.core.storage import make_folder
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.manifest import VideoEntry
from tats_ray.evaluation.pictures.clip_views import checkpoints_of
from tats_ray.models.zoo import token_grid
from tats_ray.runs.reports.compare_runs import compare_on_a_page
from tats_ray.runs.reports.run_report import write_run_report

COMPARISON_FILE = Path("comparison.html")
MOST_RUNS = 8
"""On one page: as many as there are colours that are told apart."""


def report(
    folders: Sequence[Path], *, compare: Path | None = None, out: Path | None = None
) -> Path:
    """Write the report of a run, or a page that compares several.

    Args:
        compare: any checkpoint with a decoder, whose mask the viewer shows too.
        out: file to write; default: `report.html` of the run, or `comparison.html` here.

    Raises:
        UsageError: for what is no pre-training run or has no checkpoint, a run that goes on, whose
            own report is still to come, and storage that refuses the page.
    """
    if not folders:
        raise UsageError("report needs a run folder; use tats report RUN [RUN ...]")
    if len(folders) > MOST_RUNS:
        raise UsageError(
            f"{len(folders)} runs are too many for one page, which takes {MOST_RUNS}; leave some "
            "out, or use `tats compare`"
        )
    if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise UsageError(f"--out {out} is not the name of a page; use one that ends in .html")
    configs = [_config(folder) for folder in folders]
    if out is not None:
        make_folder(out.parent, way_out="use another --out")
    other = open_checkpoint(compare) if compare else None
    grid = token_grid(configs[0].data, configs[0].model)
    if other is not None and other.grid != grid:
        raise UsageError(
            f"--compare {compare} cuts clips as {other.grid}, {folders[0]} as {grid}; use a "
            "checkpoint that cuts them likewise"
        )
    videos, unseen = _videos(configs[0])
    if unseen:
        print(f"note: {unseen}", flush=True)
    if len(folders) > 1:
        page = out or COMPARISON_FILE
        return compare_on_a_page(page, folders, configs, videos, unseen=unseen, other=other)
    if out is None and (holder := holder_in_words(folders[0])):
        raise UsageError(
            f"{folders[0]} is in use by {holder} and writes its report at its end; wait for that, "
            f"or write one now beside it with --out {folders[0].name}.html"
        )
    return write_run_report(
        configs[0], folders[0], videos, unseen=unseen, other=other, out=out, is_at_end=False
    )


def _config(folder: Path) -> RunConfig:
    """Of a folder that a report can be made of."""
    if folder.is_file():
        raise UsageError(
            f"{folder} is a file, and a report needs the metrics of a run folder; `tats show-masks "
            f"{folder} VIDEO` shows what a checkpoint with a decoder does"
        )
    if not is_run_folder(folder):
        what = "is not a run folder" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {what}; `tats status` lists the runs here")
    if is_fine_tuned(folder):
        raise UsageError(
            f"{folder} is a run of fine-tuning, which has neither masks nor a decoder to show; "
            f"`tats status {folder}` shows its figures"
        )
    config = load_config(folder)
    checkpoints_of(folder)
    return config


def _videos(config: RunConfig) -> tuple[list[VideoEntry], str]:
    """The videos that a run is measured on, or why they cannot be had."""
    try:
        lists = read_lists(config.data)
    except UsageError as error:
        return [], f"No clips are shown: {error}"
    return lists.val or lists.train, ""
