"""What a row's encoder is worth: probes, fine-tuning with few labels, state probes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from tats_ray.checkpoints.format import load_weights
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.config.load import finetune_config
from tats_ray.core.devices import torch_threads
from tats_ray.core.storage import replace_text
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.views import ViewDataset, ViewPlan
from tats_ray.evaluation.encoder import open_encoder
from tats_ray.evaluation.features import FeatureRequest, FrozenEncoder, compute
from tats_ray.evaluation.probe import ProbeRequest, probe
from tats_ray.evaluation.probe_protocols import ProbeRecipe, recipe
from tats_ray.evaluation.states.targets import Targets, binned, read_targets
from tats_ray.models.zoo import new_classifier
from tats_ray.runs.finetune_plan import make_finetune_plan
from tats_ray.training.finetune_build import finetune_batches
from tats_ray.training.finetune_loop import ClassifierLearner, FinetuneLoop, LabelledBatch
from tats_ray.training.finetune_validation import count_right

from .plan import CHANGE

FINETUNE = Path(__file__).parents[2] / "tune_configs" / "finetune_motion.yaml"
ATTENTIVE = recipe("attentive", lrs=(1e-3,), weight_decays=(0.1,))
"""One head: a grid of twenty costs more than the training."""
LABELS_PER_CLASS = 20
FINETUNE_EPOCHS = 30
STATE_VIEWS = ViewPlan(3, 1)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of ridge regression, where the mean length of an example is 1."""


@torch_threads(1)
def classes(run: Path, data: Path, seed: int) -> dict[str, float]:
    """Top-1 of the probes and of fine-tuning, 0 to 1."""

    def top1(heads: ProbeRecipe | None) -> float:
        request = ProbeRequest(
            checkpoint=run,
            train_list=data / "train.csv",
            val_list=data / "val.csv",
            recipe=heads,
            train_views=ViewPlan(2, 1),
            val_views=ViewPlan(2, 1),
            seed=seed,
        )
        return probe(request).top1

    return {
        "linear": top1(recipe("linear")),
        "knn": top1(None),
        "attentive": top1(ATTENTIVE),
        "finetune": fine_tuned(run, data, seed),
    }


def few_labels(data: Path) -> Path:
    """A list of the first videos of each class of the training list."""
    seen: dict[int | None, list[str]] = defaultdict(list)
    for entry in read_list(data / "train.csv"):
        seen[entry.label].append(f"{Path(entry.path).resolve()}\t{entry.label}\n")
    path = data / f"train_{LABELS_PER_CLASS}.csv"
    lines = [line for label in sorted(seen, key=str) for line in seen[label][:LABELS_PER_CLASS]]
    replace_text(path, "".join(lines))
    return path


class _Quiet:
    def on_batch(
        self, loop: FinetuneLoop, metrics: Mapping[str, float], batch: LabelledBatch
    ) -> None: ...

    def on_epoch(self, loop: FinetuneLoop) -> None: ...


def fine_tuned(run: Path, data: Path, seed: int) -> float:
    """Top-1 after fine-tuning with few labels, 0 to 1, as `tats finetune` does without Ray."""
    flags = ["--seed", str(seed), "--optim.epochs", str(FINETUNE_EPOCHS), "--name", "few"]
    flags += ["--data.train_list", str(few_labels(data)), "--data.val_list", str(data / "val.csv")]
    plan = make_finetune_plan(run, None, finetune_config(FINETUNE, flags))
    network = new_classifier(plan.config)
    load_weights(network, {**network.state_dict(), **plan.start_weights()}, source=str(run))
    batches = finetune_batches(plan.config, plan.lists.train)
    learner = ClassifierLearner(network, plan.config, steps_per_epoch=batches.steps_per_epoch)
    FinetuneLoop(
        epochs=plan.config.optim.epochs, batches=batches, learner=learner, hooks=_Quiet()
    ).run()
    right, num = count_right(learner, plan.config, plan.lists.val)
    return right / num


@dataclass(frozen=True)
class StateReader:
    """The clips of a game as an encoder reads them, and their states."""

    source: FrozenEncoder
    data: Path

    @cached_property
    def lists(self) -> tuple[list[VideoEntry], list[VideoEntry]]:
        return read_list(self.data / "train.csv"), read_list(self.data / "val.csv")

    @cached_property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """Of every view of both lists, n N D."""
        asked = (
            FeatureRequest(source=self.source, entries=entries, plan=STATE_VIEWS, pool="tokens")
            for entries in self.lists
        )
        train, val = (compute(request, num_workers=0, say=lambda text: None) for request in asked)
        return train.values.flatten(0, 1), val.values.flatten(0, 1)

    def targets(self, change: int) -> tuple[Targets, Targets]:
        """States, or their changes, of both lists."""
        frames, stride = self.source.grid.num_frames, self.source.data.stride
        train, val = (
            read_targets(part, STATE_VIEWS, num_frames=frames, stride=stride, change=change)
            for part in self.lists
        )
        train, val, _ = binned(train, val)
        return train, val

    def pixels(self, entries: list[VideoEntry]) -> Tensor:
        """All frames of every view at half their size, n P, 0 to 1."""
        grid, data = self.source.grid, self.source.data
        dataset = ViewDataset(
            entries,
            STATE_VIEWS,
            num_frames=grid.num_frames,
            image_size=grid.image_size,
            stride=data.stride,
            min_frames=data.min_frames,
            backend=data.decoder,
        )
        rows = []
        for index in range(len(entries)):
            views = dataset[index].pixels
            assert views is not None, entries[index].path
            rows.append(avg_pool3d(views.float() / 255, (1, 2, 2)).flatten(1))
        return torch.cat(rows)

    def read(self, change: int, *, is_pooled: bool = False) -> float:
        """R2 of what ridge regression reads of all tokens, or of their mean."""
        train, val = (part.float() for part in self.tokens)
        parts = (train.mean(1), val.mean(1)) if is_pooled else (train.flatten(1), val.flatten(1))
        return ridge(*parts, *self.targets(change))


def ridge(train: Tensor, val: Tensor, truth: Targets, tested: Targets) -> float:
    """Mean R2 of ridge regression, solved between examples, since features are many.

    For each value, the penalty is that which does best on the last fifth of the training list,
    which shows other episodes than most of the rest.
    """
    centre = train.mean(0)
    train, val = train - centre, val - centre
    kernel, cross = (train @ train.T).double(), (val @ train.T).double()
    scale = kernel.diagonal().mean()
    kernel, cross = kernel / scale, cross / scale
    cut, scores = round(0.8 * len(train)), []
    for y, wanted in zip(truth.values.T, tested.values.T, strict=True):
        fit = ~y.isnan()
        first, last = fit.nonzero()[:, 0].split([int(fit[:cut].sum()), int(fit[cut:].sum())])
        tried = {
            penalty: _r2(
                kernel[first][:, first], kernel[last][:, first], y[first], y[last], penalty
            )
            for penalty in PENALTIES
        }
        best, asked = max(PENALTIES, key=tried.__getitem__), ~wanted.isnan()
        whole = kernel[fit][:, fit], cross[asked][:, fit]
        scores.append(_r2(*whole, y[fit], wanted[asked], best))
    return known(scores)


def _r2(kernel: Tensor, cross: Tensor, y: Tensor, wanted: Tensor, penalty: float) -> float:
    """Of ridge regression in its dual form; NaN without an example to score."""
    ridged = kernel + penalty * torch.eye(len(kernel), dtype=kernel.dtype)
    weights = torch.linalg.solve(ridged, y - y.mean())
    left = (wanted - y.mean() - cross @ weights).square().sum()
    return float(1 - left / (wanted - wanted.mean()).square().sum())


def known(r2: Sequence[float]) -> float:
    """The mean over the values; one that is not read at all counts as 0, however wrong it is."""
    return fmean(max(value, 0.0) if value == value else 0.0 for value in r2)


@torch_threads(1)
def states(run: Path, data: Path) -> dict[str, float]:
    """What is read of the changes of states, which decides, and of the states themselves: R2."""
    reader = StateReader(open_encoder(run, EncoderOptions(device="cpu")), data)
    return {
        "state": reader.read(CHANGE),
        "state_pooled": reader.read(CHANGE, is_pooled=True),
        "now": reader.read(0),
    }
