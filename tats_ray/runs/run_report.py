"""The report of a finished run: figures, pictures, curves and explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tats_ray.checkpoints.restore import restore
from tats_ray.config.load import dump_config
from tats_ray.core.errors import VideoError
from tats_ray.core.words import decimal
from tats_ray.evaluation.show_masks import draw_panel
from tats_ray.runs.pretrain_plan import Plan
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
        plateau=plan.plateau,
    )


def _pictures(plan: Plan, folder: Path) -> list[tuple[str, Path]]:
    """Masks on the first videos of the validation list, or else of the training list."""
    restored = restore(folder)
    drawn: list[tuple[str, Path]] = []
    for entry in (plan.lists.val or plan.lists.train)[: 4 * _NUM_PICTURES]:
        if len(drawn) == _NUM_PICTURES:
            break
        path = folder / f"masks_{len(drawn) + 1}.png"
        try:
            draw_panel(restored, entry.path, path)
        except VideoError:
            continue  # validation names it; another video serves as well here
        drawn.append((Path(entry.path).name, path))
    return drawn


def _summary(plan: Plan, metrics: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(what, value, meaning) rows; what was not measured is left out."""
    measured = [record for record in metrics if "eval/error" in record]
    trained = [record for record in metrics if "mae/loss" in record]
    rows: list[tuple[str, str, str]] = []
    if measured:
        first, last = measured[0]["eval/error"], measured[-1]["eval/error"]
        mean = plan.plateau
        plateau = "" if mean is None else f" (predicting the mean gives {decimal(mean, 3)})"
        rows.append(
            (
                "Validation error",
                f"{decimal(first, 3)} -> {decimal(last, 3)}",
                f"under one fixed random mask; {1 - last / first:.0%} less than at the start"
                f"{plateau}",
            )
        )
    elif trained:
        first, last = trained[0]["mae/loss"], trained[-1]["mae/loss"]
        course = f"{decimal(first, 3)} -> {decimal(last, 3)}"
        rows.append(("Training error", course, "under the sampler's masks"))
    end = measured[-1] if measured else {}
    if "eval/motion_ratio" in end:
        rows.append(
            (
                "Moving tokens shown",
                f"{end['eval/motion_ratio']:.2f}x chance",
                "how over-represented moving tokens are among the visible ones",
            )
        )
        rows.append(
            (
                "AUC against true motion",
                f"{end['eval/motion_auc']:.2f}",
                "probability of preferring a moving token to a still one; 0.5 is chance",
            )
        )
    if "eval/entropy" in end:
        rows.append(
            (
                "Entropy of the sampler",
                f"{end['eval/entropy']:.2f} of log N",
                f"{end['eval/effective_tokens']:.0f} of {plan.num_tokens} tokens are in use; "
                "under 0.5 it has collapsed",
            )
        )
    return rows


def _next_commands(plan: Plan, folder: Path) -> list[str]:
    video = (plan.lists.val or plan.lists.train)[-1].path
    return [
        f"tats show-masks {folder} {video} --out masks.png",
        f"tensorboard --logdir {folder / 'tensorboard'}",
        f"tats pretrain {folder}/config.yaml --name {plan.config.name}-tube --sampler.name tube",
    ]
