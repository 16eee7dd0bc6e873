"""`tats probe`: accuracy of a classifier on the frozen features of an encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tats_ray.checkpoints.open import resolve_path
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.core.arrays import Float, Int
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder
from tats_ray.core.words import counted
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.encoder import folder_of_run, open_encoder
from tats_ray.evaluation.extract import refuse_too_large, say, warn
from tats_ray.evaluation.feature_cache import cached
from tats_ray.evaluation.features import FeatureRequest, FrozenEncoder
from tats_ray.evaluation.labelled_lists import read_labelled
from tats_ray.evaluation.probe_choice import HELD_OUT_SHARE, best, hold_out, try_all
from tats_ray.evaluation.probe_protocols import ProbeRecipe
from tats_ray.evaluation.probe_training import Examples, Probe
from tats_ray.evaluation.results import Answers, EvaluationResult, versions, write_results
from tats_ray.models.probe_heads import fold_batch_norm
from tats_ray.ops.scores import nearest_neighbour_scores

Kind = Literal["linear", "attentive", "knn"]


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What is probed, and how."""

    checkpoint: Path
    train_list: Path
    val_list: Path
    root: Path | None = None
    """Of relative paths in both lists; default: the folder of each."""
    recipe: ProbeRecipe | None
    """None for the nearest neighbours, which learn nothing."""
    train_views: ViewPlan = field(default_factory=ViewPlan)
    val_views: ViewPlan = field(default_factory=lambda: ViewPlan(2, 3))
    k: int = 20
    temperature: float = 0.07
    seed: int = 0
    is_untrained: bool = False
    """Freshly drawn weights instead of the checkpoint's: the baseline."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    out: Path | None = None
    """For results and cached features; default: the folder of the run."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise UsageError(
                f"k {self.k} must be at least 1, and temperature {self.temperature:g} above 0"
            )

    @property
    def kind(self) -> Kind:
        if self.recipe is None:
            return "knn"
        return "attentive" if self.recipe.head == "attentive" else "linear"


@dataclass(frozen=True)
class _Outcome:
    """A probe's predictions for the validation videos, and how they were made."""

    scores: Float[Tensor, "n V C"]
    protocol: dict[str, Any]
    head: Mapping[str, Tensor]
    """What was learned; empty for the nearest neighbours."""


def probe(request: ProbeRequest) -> EvaluationResult:
    """Features once, then the probe; prints a table and writes everything beside the checkpoint.

    Raises:
        UsageError, VideoError, NonFiniteError: each says what to do.
    """
    request = replace(request, checkpoint=resolve_path(request.checkpoint))
    lists = read_labelled(request.train_list, request.val_list, root=request.root)
    untrained_seed = request.seed if request.is_untrained else None
    source = open_encoder(request.checkpoint, request.encoder, untrained_seed=untrained_seed)
    say(source.words, "encoder")
    root = request.out or folder_of_run(request.checkpoint)
    make_folder(root / "probes")
    train, _, train_how = _examples(request, source, lists.train, request.train_views, root)
    val, place, val_how = _examples(request, source, lists.val, request.val_views, root)
    outcome = (_nearest if request.recipe is None else _trained)(
        request, source, train, val, lists.num_classes
    )
    protocol = {
        "probe": request.kind,
        "checkpoint": str(request.checkpoint),
        **source.about(),
        "is_untrained": request.is_untrained,
        "seed": request.seed,
        "num_classes": lists.num_classes,
        "train": {"list": str(request.train_list), "num_videos": len(train), **train_how},
        "val": {"list": str(request.val_list), "num_videos": len(val), **val_how},
        "aggregation": "mean over views of scores that sum to one",
        **outcome.protocol,
        **versions(),
    }
    num_views = request.val_views.num_views
    answers = Answers(
        lists.val,
        video=place.repeat_interleave(num_views),
        view=torch.arange(num_views).repeat(len(place)),
        scores=outcome.scores.flatten(0, 1),
    )
    result = write_results(root / "probes", request.kind, answers, protocol, outcome.head)
    _note_chance(result.top1, len(place), lists.num_classes)
    return result


def _note_chance(top1: float, num_videos: int, num_classes: int) -> None:
    """Most first probes are of a run of minutes, and their figures look like a fault."""
    if top1 < 1 / num_classes + 2 * math.sqrt(top1 * (1 - top1) / num_videos):
        warn(
            "top-1 is within two standard errors of chance: these features do not tell the classes "
            "apart; expect this of the demo and of other runs of minutes, and see "
            "tune_configs/motion_cpu.yaml for one that does better"
        )


def _examples(
    request: ProbeRequest,
    source: FrozenEncoder,
    entries: list[VideoEntry],
    plan: ViewPlan,
    root: Path,
) -> tuple[Examples, Int[Tensor, " n"], dict[str, Any]]:
    """Features and labels of what can be read, its places in the list, and how it was made."""
    pool: Literal["mean", "tokens"] = "tokens" if request.kind == "attentive" else "mean"
    asked = FeatureRequest(source=source, entries=entries, plan=plan, pool=pool)
    refuse_too_large(asked, request.encoder.max_gb)
    found = cached(asked, root / "features", num_workers=request.encoder.workers, say=say)
    for reason in found.unreadable:
        warn(f"left out: {reason}")
    labels = torch.tensor([entries[at].label for at in found.index.tolist()])
    how = {"features": asked.settings(), "unreadable": found.unreadable, "key": asked.key()}
    return Examples(found.values, labels), found.index, how


def _nearest(
    request: ProbeRequest, source: FrozenEncoder, train: Examples, val: Examples, num_classes: int
) -> _Outcome:
    """A training video is the mean of its views; each view of a validation video votes."""
    k = min(request.k, len(train))
    if k < request.k:
        warn(f"k {request.k} exceeds the number of training videos; using k {k}")
    bank = train.features.double().mean(1)
    scores = nearest_neighbour_scores(
        val.features.flatten(0, 1),
        bank,
        train.labels,
        num_classes=num_classes,
        k=k,
        temperature=request.temperature,
    )
    scores = scores.unflatten(0, val.features.shape[:2])
    how = {"k": k, "temperature": request.temperature, "distance": "cosine"}
    return _Outcome(scores, {"settings": how}, {})


def _trained(
    request: ProbeRequest, source: FrozenEncoder, train: Examples, val: Examples, num_classes: int
) -> _Outcome:
    """The grid on four fifths of the training list, the best pair of it on all."""
    recipe = request.recipe
    assert recipe is not None

    def new(grid: list[tuple[float, float]]) -> Probe:
        return Probe(
            recipe,
            grid,
            width=source.width,
            num_heads=source.num_heads,
            num_classes=num_classes,
            seed=request.seed,
            device=source.encoder.pos_embed.device,
        )

    pair, tried = recipe.grid[0], {}
    if len(recipe.grid) > 1:
        rest, held = hold_out(train.labels, seed=request.seed)
        trials = try_all(new(recipe.grid), train.take(rest), train.take(held))
        won = best(trials)
        pair = won.base_lr, won.weight_decay
        say(
            f"{counted(len(trials), 'head')} on {counted(len(rest), 'training video')}, measured "
            f"on the {len(held)} held out: best top-1 {won.top1:.1%} with lr {won.base_lr:g}, "
            f"weight decay {won.weight_decay:g}"
        )
        tried = {
            "chosen_on": f"{len(held)} held-out videos of the training list, "
            f"{HELD_OUT_SHARE:.0%} of each class; the validation list took no part",
            "held_out": [asdict(trial) for trial in trials],
        }
    final = new([pair])
    final.fit(train)
    scores = final.scores(val.features)[0]
    chosen = {"base_lr": pair[0], "weight_decay": pair[1], "trained_on": "the whole training list"}
    how = {"settings": asdict(recipe), "chosen": chosen, **tried}
    return _Outcome(scores, how, _weights(final))


def _weights(probe: Probe) -> dict[str, Tensor]:
    """Of its one head; a batch norm is folded into the linear layer behind it."""
    head = next(iter(probe.heads))
    if isinstance(probe.norm, nn.BatchNorm1d):
        assert isinstance(head, nn.Linear)
        head = fold_batch_norm(probe.norm, head)
    return head.state_dict()
