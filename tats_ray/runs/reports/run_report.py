"""The report of a finished run: figures, pictures, curves and explanations."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.load import dump_config
from tats_ray.config.plugins import SAMPLERS
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import VideoError
from tats_ray.core.words import three
from tats_ray.data.manifest import VideoEntry
from tats_ray.evaluation.pictures.clip_views import view_clips
from tats_ray.evaluation.show_masks import draw_panel
from tats_ray.models.zoo import num_visible, token_grid
from tats_ray.runs.origin import about_run
from tats_ray.view.page.shell import unwritable
from tats_ray.view.page.viewer import Viewing
from tats_ray.view.records import series, without_stub
from tats_ray.view.report_page import REPORT_FILE, write_report
from tats_ray.view.tracking import read_bad_videos, read_metrics

_NUM_PICTURES = 2


def write_run_report(
    config: RunConfig,
    folder: Path,
    videos: Sequence[VideoEntry],
    *,
    unseen: str = "",
    other: Restored | None = None,
    out: Path | None = None,
    is_at_end: bool = True,
) -> Path:
    """Write the report of a run and, beside it, the mask pictures `masks_1.png` and so on.

    Args:
        videos: to choose clips from, see `view_clips`.
        unseen: why there are none, a sentence.
        other: checkpoint whose mask the viewer also shows; default: a uniformly random one.
        out: a file for the report alone; default: `<run>/report.html` and pictures.
        is_at_end: the run has just ended, on this machine.

    Raises:
        CheckpointError: for a run without a checkpoint, or without a decoder.
        UsageError: when the storage refuses the report.
    """
    metrics = read_metrics(folder)
    grid = token_grid(config.data, config.model)
    viewing: Viewing | None = None
    pictures: list[tuple[str, Path, Path]] = []
    if videos:
        try:
            viewing = view_clips({config.name: folder}, videos, other=other)
        except VideoError as error:
            unseen = f"No clips are shown, because no video could be read: {error}"
        pictures = _pictures(folder, videos) if out is None else []
    return write_report(
        out or folder / REPORT_FILE,
        title=f"{config.name}: masked autoencoder with {config.sampler.name} masks",
        summary=_summary(config, metrics),
        metrics=metrics,
        bad_videos=read_bad_videos(folder),
        viewing=viewing,
        unseen=unseen,
        picture=pictures[0] if pictures else None,
        config_yaml=dump_config(config),
        next_commands=_next_commands(config, folder, videos),
        about=about_run(metrics, is_here=is_at_end),
        plateau=_mean_error(config, metrics),
        num_visible=num_visible(config.sampler, grid),
        num_tokens=grid.num_tokens,
    )


def _pictures(folder: Path, videos: Sequence[VideoEntry]) -> list[tuple[str, Path, Path]]:
    """Masks on the first videos, drawn."""
    restored = open_checkpoint(folder)
    drawn: list[tuple[str, Path, Path]] = []
    for entry in videos[: 4 * _NUM_PICTURES]:
        if len(drawn) == _NUM_PICTURES:
            break
        light, dark = (folder / f"masks_{len(drawn) + 1}{kind}.png" for kind in ("", "_dark"))
        try:
            draw_panel(restored, entry.path, light, dark=dark)
        except VideoError:
            continue  # validation names it; another video serves as well here
        except OSError as error:
            raise unwritable(light, error) from error
        drawn.append((Path(entry.path).name, light, dark))
    return drawn


def _summary(config: RunConfig, metrics: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(what, value, meaning) rows; what was not measured is left out."""
    grid = token_grid(config.data, config.model)
    measured = [record for record in metrics if "eval/error" in record]
    rows: list[tuple[str, str, str]] = []
    for what, name, masks in (
        ("Validation error", "eval/error", "under one fixed random mask"),
        ("Training error", "mae/loss", "under the sampler's masks"),
    ):
        values = series(without_stub(metrics), name)[1]
        if not values:
            continue
        plateau = _mean_error(config, metrics)
        mean = f"predicting the mean gives {three(plateau)}" if plateau else ""
        if len(values) == 1 or not values[0]:
            course, meaning = three(values[-1]), masks + ", measured once" * (len(values) == 1)
        else:
            change = values[-1] / values[0] - 1
            course = f"{three(values[0])} -> {three(values[-1])}"
            meaning = (
                f"{masks}; {abs(change):.0%} {'less' if change <= 0 else 'more'} than at first"
            )
        rows.append((what, course, f"{meaning} ({mean})" if mean else meaning))
        break
    end = measured[-1] if measured else {}
    if "eval/own_error" in end:
        rows.append(
            (
                "Error under its own masks",
                three(end["eval/own_error"]),
                "the same clips, where the sampler chooses what is visible",
            )
        )
    if "eval/motion_ratio" in end:
        rows.append(
            (
                "Moving tokens shown",
                f"{three(end['eval/motion_ratio'])}x chance",
                "how over-represented moving tokens are among the visible ones",
            )
        )
        rows.append(
            (
                "AUC against true motion",
                three(end["eval/motion_auc"]),
                "probability of preferring a moving token to a still one; 0.5 is chance",
            )
        )
    if "eval/entropy" in end:
        rows.append(
            (
                "Entropy of the sampler",
                f"{three(end['eval/entropy'])} of log N",
                f"{three(end['eval/effective_tokens'])} of {grid.num_tokens} tokens are in use, "
                f"for {num_visible(config.sampler, grid)} shown",
            )
        )
    return rows


def _mean_error(config: RunConfig, metrics: list[dict[str, Any]]) -> float | None:
    """Error of predicting the mean, measured where it was; None where nobody knows it.

    Unmeasured it is (n-1)/n for normalised targets of n pixels, since their deviation is unbiased.
    Where targets are plain pixels, it is the videos' own.
    """
    measured = series(metrics, "eval/mean_error")[1]
    if measured or not config.model.normalize_targets:
        return measured[-1] if measured else None
    pixels = config.model.tubelet * config.model.patch**2
    return (pixels - 1) / pixels


def _next_commands(config: RunConfig, folder: Path, videos: Sequence[VideoEntry]) -> list[str]:
    """Commands that show something that this run and its report do not."""
    video = videos[-1].path if videos else "VIDEO"
    rival = next(name for name in SAMPLERS if name != config.sampler.name)
    name = f"{config.name}_{rival}"
    both = [str(folder), str(folder.parent / name)]
    commands = [
        ["tats", "show-masks", str(folder), video, "--out", "masks.gif"],
        ["tensorboard", "--logdir", str(folder / "tensorboard")],
        ["tats", "pretrain", f"{folder}/config.yaml", "--name", name, "--sampler.name", rival],
        ["tats", "report", *both],
        ["tats", "compare", *both],
    ]
    return [shlex.join(words) for words in commands]
