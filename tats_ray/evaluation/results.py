"""What an evaluation writes: figures, predictions, protocol and a picture."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats_ray import __version__
from tats_ray.core.arrays import Float, Int
from tats_ray.core.words import counted
from tats_ray.data.manifest import VideoEntry
from tats_ray.evaluation.extract import full_path
from tats_ray.evaluation.feature_cache import write_tensors
from tats_ray.ops.scores import confusion_matrix, mean_class_accuracy, merge_views, ranks
from tats_ray.view.confusion import draw_confusion
from tats_ray.view.tables import print_table


@dataclass(frozen=True)
class Answers:
    """Scores of views of labelled videos, in any order; repeated ones count once."""

    entries: Sequence[VideoEntry]
    video: Int[Tensor, " R"]
    """Place among the entries; those without a row are left out."""
    view: Int[Tensor, " R"]
    scores: Float[Tensor, "R C"]
    """Non-negative, rows sum to one."""


@dataclass(frozen=True)
class EvaluationResult:
    """Shares of the videos, 0 to 1, and the folder with everything."""

    top1: float
    top5: float
    mean_class: float
    folder: Path


def versions() -> dict[str, str]:
    return {
        "tats_ray": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write_results(
    root: Path,
    name: str,
    answers: Answers,
    protocol: Mapping[str, Any],
    head: Mapping[str, Tensor],
    *,
    title: str = "",
) -> EvaluationResult:
    """Write a folder whose name ends in a hash of the protocol, and print a table.

    Equal settings write the same folder again, others stay beside it.

    Args:
        title: of the table, before the numbers of videos and classes; default: that of a probe.
    """
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    folder = root / f"{name}-{digest[:8]}"
    num_classes = answers.scores.shape[1]
    videos, scores = merge_views(answers.scores, answers.video, answers.view)
    entries = [answers.entries[at] for at in videos.tolist()]
    labels = torch.tensor([entry.label for entry in entries])
    rank = ranks(scores, labels)
    confusion = confusion_matrix(scores.argmax(1), labels, num_classes)
    result = EvaluationResult(
        top1=float((rank < 1).double().mean()),
        top5=float((rank < 5).double().mean()),
        mean_class=mean_class_accuracy(confusion),
        folder=folder,
    )
    shares = {"top1": result.top1, "top5": result.top5, "mean_class": result.mean_class}
    figures = {key: round(share, 6) for key, share in shares.items()}
    if head:
        write_tensors(folder / "head.safetensors", head, {"probe": name})
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "protocol.json", {**protocol, "results": figures})
    _write_json(folder / "predictions.json", _predictions(entries, scores))
    draw_confusion(
        confusion.numpy(),
        folder / "confusion.png",
        names=_class_names(entries, num_classes),
        title=f"{name}: top-1 {result.top1:.1%} of {counted(len(labels), 'video')}",
    )
    _print(title or f"{name} probe, validation", result, len(labels), num_classes)
    return result


def _predictions(
    entries: Sequence[VideoEntry], scores: Float[Tensor, "n C"]
) -> dict[str, dict[str, Any]]:
    """By full path: the label, the prediction and the scores, to six decimals."""
    rows = zip(entries, scores.argmax(1).tolist(), scores.tolist(), strict=True)
    return {
        full_path(entry): {
            "label": entry.label,
            "predicted": predicted,
            "scores": [round(score, 6) for score in row],
        }
        for entry, predicted, row in rows
    }


def _class_names(entries: Sequence[VideoEntry], num_classes: int) -> list[str] | None:
    """From a classes.json above the videos, as `tats data synth` writes it; None if none fits."""
    for folder in list(Path(entries[0].path).parents)[:2]:
        try:
            names = json.loads((folder / "classes.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(names, list) and len(names) == num_classes:
            return [str(name) for name in names]
    return None


def _print(what: str, result: EvaluationResult, num_videos: int, num_classes: int) -> None:
    def error(share: float) -> str:
        return f"{100 * math.sqrt(share * (1 - share) / num_videos):.1f}"

    rows = [("top-1", f"{100 * result.top1:.1f}", error(result.top1), f"{100 / num_classes:.1f}")]
    if num_classes > 5:
        chance = f"{500 / num_classes:.1f}"
        rows.append(("top-5", f"{100 * result.top5:.1f}", error(result.top5), chance))
    rows.append(("mean class", f"{100 * result.mean_class:.1f}", "", f"{100 / num_classes:.1f}"))
    title = f"{what}, {counted(num_videos, 'video')}, {counted(num_classes, 'class')}"
    print_table(("%", "accuracy", "std. error", "chance"), rows, title=title)
    print(f"{'results':>14}  {result.folder}", flush=True)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
