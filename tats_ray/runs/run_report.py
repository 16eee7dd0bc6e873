"""The report of a finished run: figures, pictures, curves and explanations."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.restore import restore
from tats_ray.config.load import dump_config
from tats_ray.config.plugins import SAMPLERS
from tats_ray.core.errors import VideoError
from tats_ray.core.words import decimal
from tats_ray.evaluation.show_masks import draw_panel
from tats_ray.runs.origin import about_run
from tats_ray.runs.pretrain_plan import Plan
from tats_ray.view.records import series, without_stub
from tats_ray.view.report_page import write_report
from tats_ray.view.tracking import read_bad_videos, read_metrics

_NUM_PICTURES = 2


def write_run_report(plan: Plan, folder: Path) -> Path:
    """Write `<run>/report.html` and the mask pictures it shows."""
    metrics = read_metrics(folder)
    return write_report(
        folder,
        title=f"{plan.config.name}: masked autoencoder with {plan.config.sampler.name} masks",
        summary=_summary(plan, metrics),
        metrics=metrics,
        bad_videos=read_bad_videos(folder),
        pictures=_pictures(plan, folder),
        config_yaml=dump_config(plan.config),
        next_commands=_next_commands(plan, folder),
        about=about_run(metrics),
        plateau=_mean_error(plan, metrics),
        num_visible=plan.num_visible,
        num_tokens=plan.num_tokens,
    )


def _pictures(plan: Plan, folder: Path) -> list[tuple[str, Path, Path]]:
    """Masks on the first videos of the validation list, or else of the training list."""
    restored = restore(folder)
    drawn: list[tuple[str, Path, Path]] = []
    for entry in (plan.lists.val or plan.lists.train)[: 4 * _NUM_PICTURES]:
        if len(drawn) == _NUM_PICTURES:
            break
        light, dark = (folder / f"masks_{len(drawn) + 1}{kind}.png" for kind in ("", "_dark"))
        try:
            draw_panel(restored, entry.path, light, dark=dark)
        except VideoError:
            continue  # validation names it; another video serves as well here
        drawn.append((Path(entry.path).name, light, dark))
    return drawn


def _summary(plan: Plan, metrics: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(what, value, meaning) rows; what was not measured is left out."""
    measured = [record for record in metrics if "eval/error" in record]
    rows: list[tuple[str, str, str]] = []
    for what, name, masks in (
        ("Validation error", "eval/error", "under one fixed random mask"),
        ("Training error", "mae/loss", "under the sampler's masks"),
    ):
        values = series(without_stub(metrics), name)[1]
        if not values:
            continue
        plateau = _mean_error(plan, metrics)
        mean = f"predicting the mean gives {decimal(plateau, 3)}" if plateau else ""
        if len(values) == 1:
            course, meaning = decimal(values[0], 3), f"{masks}, measured once"
        else:
            change = values[-1] / values[0] - 1
            course = f"{decimal(values[0], 3)} -> {decimal(values[-1], 3)}"
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
                decimal(end["eval/own_error"], 3),
                "the same clips, where the sampler chooses what is visible",
            )
        )
    if "eval/motion_ratio" in end:
        rows.append(
            (
                "Moving tokens shown",
                f"{decimal(end['eval/motion_ratio'], 2)}x chance",
                "how over-represented moving tokens are among the visible ones",
            )
        )
        rows.append(
            (
                "AUC against true motion",
                f"{end['eval/motion_auc']:.3f}",
                "probability of preferring a moving token to a still one; 0.5 is chance",
            )
        )
    if "eval/entropy" in end:
        rows.append(
            (
                "Entropy of the sampler",
                f"{end['eval/entropy']:.2f} of log N",
                f"{end['eval/effective_tokens']:.0f} of {plan.num_tokens} tokens are in use, for "
                f"{plan.num_visible} shown",
            )
        )
    return rows


def _mean_error(plan: Plan, metrics: list[dict[str, Any]]) -> float | None:
    """Error of predicting the mean, measured where it was; None where nobody knows it."""
    measured = series(metrics, "eval/mean_error")[1]
    return measured[-1] if measured else plan.plateau


def _next_commands(plan: Plan, folder: Path) -> list[str]:
    """Commands that show something that this run and its report do not."""
    video = (plan.lists.val or plan.lists.train)[-1].path
    config, own = plan.config, plan.config.sampler.name
    rival = next(name for name in SAMPLERS if name != own)
    name = f"{config.name}_{rival}"
    commands = [
        ["tats", "show-masks", str(folder), video, "--out", "masks.gif"],
        ["tensorboard", "--logdir", str(folder / "tensorboard")],
        ["tats", "pretrain", f"{folder}/config.yaml", "--name", name, "--sampler.name", rival],
        ["tats", "compare", str(folder), str(folder.parent / name)],
    ]
    return [shlex.join(words) for words in commands]
