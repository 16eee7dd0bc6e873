"""`tats test`: predictions of a fine-tuned classifier, averaged over views of each video."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats_ray.checkpoints.fine_tuned import is_fine_tuned, read_fine_tuned
from tats_ray.checkpoints.open import resolve_path
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.views import Sampling, ViewPlan
from tats_ray.evaluation.encoder import OpenedEncoder, folder_of_run, open_encoder
from tats_ray.evaluation.extract import refuse_too_large, say, warn, without_repeats
from tats_ray.evaluation.features import FeatureRequest, compute
from tats_ray.evaluation.labelled_lists import refuse_both
from tats_ray.evaluation.results import Answers, EvaluationResult, versions, write_results
from tats_ray.models.head import ClassifierHead


@dataclass(frozen=True, kw_only=True)
class TestRequest:
    """What is tested, on what, and how."""

    __test__ = False  # pytest would take it for a test

    checkpoint: Path
    data: Path | None = None
    """Folder with test.csv or val.csv."""
    list: Path | None = None
    """Or the list itself."""
    root: Path | None = None
    """Of relative paths in it; default: the run's own `data.root`, or the list's folder."""
    views: str = ""
    """CLIPSxCROPS; empty is the run's own, or 2x3."""
    sampling: Sampling | None = None
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    out: Path | None = None


def multi_view_test(request: TestRequest) -> EvaluationResult:
    """Mean of the softmax over the views of every video [method section 2.6].

    Every video is decoded once, and a forward pass takes the views of one video and nothing else:
    no number of workers can change a result. What comes twice in the list counts once.

    Raises:
        UsageError, VideoError, NonFiniteError: each says what to do.
    """
    refuse_both(request.data, {"--list": request.list})
    request = replace(request, checkpoint=resolve_path(request.checkpoint))
    source, head = _open(request)
    say(source.words, "encoder")
    own = _own_config(request.checkpoint)
    plan = _plan(request, own)
    path = _list(request)
    root = str(request.root or (own.data.root if own else ""))
    entries = _labelled(path, root, head.head.out_features, str(request.checkpoint))
    asked = FeatureRequest(source=source, entries=entries, plan=plan)
    refuse_too_large(asked, request.encoder.max_gb)
    out = (request.out or folder_of_run(request.checkpoint)) / "tests"
    make_folder(out)
    found = compute(asked, num_workers=request.encoder.workers, say=say)
    for reason in found.unreadable:
        warn(f"left out: {reason}")
    answers = Answers(
        entries,
        video=found.index.repeat_interleave(plan.num_views),
        view=torch.arange(plan.num_views).repeat(len(found.index)),
        scores=_scores(head, found.values).flatten(0, 1),
    )
    protocol: dict[str, Any] = {
        "test": "multi-view",
        "checkpoint": str(request.checkpoint),
        **source.about(),
        "num_classes": head.head.out_features,
        "list": str(path),
        "num_videos": len(found.index),
        "unreadable": found.unreadable,
        "features": asked.settings(),
        "aggregation": "mean over views of the softmax",
        **versions(),
    }
    return write_results(out, "test", answers, protocol, {}, title=f"{plan} views")


@torch.no_grad()
def _scores(head: ClassifierHead, features: Float[Tensor, "n V D"]) -> Float[Tensor, "n V C"]:
    """Softmax of every view; one video at a time, so that sums have one order."""
    return torch.stack([head.head(head.fc_norm(one)).softmax(-1) for one in features])


def _open(request: TestRequest) -> tuple[OpenedEncoder, ClassifierHead]:
    source = open_encoder(request.checkpoint, request.encoder)
    if source.head is None:
        raise UsageError(
            f"{request.checkpoint} has no classifier ({source.origin}); `tats finetune` trains one"
        )
    return source, source.head


def _own_config(checkpoint: Path) -> FinetuneConfig | None:
    """Of a fine-tuning run of ours; None for any other checkpoint."""
    return read_fine_tuned(checkpoint).config if is_fine_tuned(checkpoint) else None


def _plan(request: TestRequest, own: FinetuneConfig | None) -> ViewPlan:
    """What is asked for, else what the run's configuration says, else 2x3."""
    sampling: Sampling = "dense"
    views = "2x3"
    if own is not None:
        sampling, views = own.data.sampling, f"{own.test.clips}x{own.test.crops}"
    return ViewPlan.parse(request.views or views, request.sampling or sampling)


def _list(request: TestRequest) -> Path:
    if request.list is not None:
        return request.list
    if request.data is None:
        raise UsageError("there is no list to test on; give a folder with val.csv, or --list LIST")
    for name in ("test.csv", "val.csv"):
        if (request.data / name).is_file():
            return request.data / name
    raise UsageError(
        f"{request.data} has neither test.csv nor val.csv; leave it out and give --list LIST"
    )


def _labelled(path: Path, root: str, num_classes: int, checkpoint: str) -> list[VideoEntry]:
    entries = without_repeats(read_list(path, root=root, needs_labels=True), str(path))
    for entry in entries:
        if entry.label is not None and entry.label >= num_classes:
            raise UsageError(
                f"{path}: {entry.path} has class {entry.label}, the head of {checkpoint} knows 0 "
                f"to {num_classes - 1}; use a list with its classes"
            )
    return entries
