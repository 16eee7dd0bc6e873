"""Several runs on one page: curves over each other, the same clips side by side, a table."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.restore import Restored
from tats_ray.config.differences import flat
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.words import three
from tats_ray.data.manifest import VideoEntry
from tats_ray.evaluation.compare import list_digests
from tats_ray.evaluation.pictures.clip_views import view_clips
from tats_ray.runs.run_record import VIDEOS_FILE
from tats_ray.view.page.viewer import Viewing
from tats_ray.view.progress import format_duration
from tats_ray.view.records import Record, series, without_stub
from tats_ray.view.report_page import write_comparison
from tats_ray.view.tracking import read_metrics

_SHAPE = ("data.num_frames", "data.image_size", "data.stride", "model.tubelet", "model.patch")
"""Fields without which two runs do not see the same clip in the same tokens."""
_MEASURES = (*_SHAPE, "model.normalize_targets", "sampler.mask_ratio", "eval.num_clips")
"""Fields without which errors of two runs do not compare."""
_FIGURES = {
    "validation error": "eval/error",
    "own masks": "eval/own_error",
    "training error": "mae/loss",
    "motion (x chance)": "eval/motion_ratio",
    "AUC": "eval/motion_auc",
    "entropy": "eval/entropy",
}


def compare_on_a_page(
    out: Path,
    folders: Sequence[Path],
    configs: Sequence[RunConfig],
    videos: Sequence[VideoEntry],
    *,
    unseen: str = "",
    other: Restored | None = None,
) -> Path:
    """Write the page; runs that differ in shape or data are said to.

    Args:
        videos: of the first run, to choose clips from; empty for the reason in `unseen`.
        other: checkpoint whose mask the viewer also shows.

    Raises:
        UsageError: for a run that is there twice, and when the page cannot be written.
    """
    names = _names(folders)
    settings = [flat(asdict(config)) for config in configs]
    fits = [not _differing(settings[0], own, _SHAPE) for own in settings]
    viewing: Viewing | None = None
    if videos:
        try:
            shown = zip(names, folders, fits, strict=True)
            alike = {name: folder for name, folder, fit in shown if fit}
            viewing = view_clips(alike, videos, other=other)
        except VideoError as error:
            unseen = f"No clips are shown, because no video could be read: {error}"
    metrics = {name: read_metrics(folder) for name, folder in zip(names, folders, strict=True)}
    return write_comparison(
        out,
        title=f"{len(folders)} runs: {', '.join(names)}",
        notes=list(_notes(names, folders, settings)),
        head=["run", "sampler", "steps", *_FIGURES, "time"],
        rows=[
            _row(name, config, metrics[name]) for name, config in zip(names, configs, strict=True)
        ],
        metrics=metrics,
        viewing=viewing,
        unseen=unseen,
        next_commands=[shlex.join(["tats", "compare", *map(str, folders)])],
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Short and distinct."""
    places = [folder.resolve() for folder in folders]
    for place, folder in zip(places, folders, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{folder} is there more than once; leave one out")
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _notes(
    names: Sequence[str], folders: Sequence[Path], settings: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """A sentence on each run that does not compare with the first."""
    first, digests = names[0], [list_digests(folder / VIDEOS_FILE) for folder in folders]
    for name, own, videos in zip(names[1:], settings[1:], digests[1:], strict=True):
        differing = _differing(settings[0], own, _MEASURES)
        if digests[0].get("data.val_list") != videos.get("data.val_list"):
            differing += ["data.val_list holds other videos"]
        if not differing:
            continue
        left_out = _differing(settings[0], own, _SHAPE)
        yield (
            f"{name} differs from {first}: {', '.join(differing)}. Errors of the two do not compare"
            + (f", and {name} is not in the viewer." if left_out else ".")
        )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [
        f"{name} is {other[name]} instead of {one[name]}"
        for name in names
        if one[name] != other[name]
    ]


def _row(name: str, config: RunConfig, metrics: Sequence[Record]) -> list[str]:
    """The last measurements of a run; a dash for what was not measured."""
    last = [series(without_stub(metrics), metric)[1][-1:] for metric in _FIGURES.values()]
    times = [record["time"] for record in metrics]
    return [
        name,
        config.sampler.name,
        f"{metrics[-1]['step']:g}" if metrics else "0",
        *(three(values[0]) if values else "-" for values in last),
        format_duration(times[-1] - times[0]) if times else "-",
    ]
