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
from tats_ray.evaluation.states.readouts import PENALTIES, read_attentively
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
        """The middle frame of every view, n P, 0 to 1."""
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
        found = (dataset[index].pixels for index in range(len(entries)))
        rows = [views[:, :, grid.num_frames // 2] for views in found if views is not None]
        return torch.cat(rows).flatten(1).float() / 255

    def linearly(self, change: int) -> float:
        means = [torch.stack([clip.float().mean(0) for clip in part]) for part in self.tokens]
        return ridge(means[0], means[1], *self.targets(change))

    def attentively(self, change: int, seed: int) -> float:
        found = read_attentively(
            *self.tokens,
            *self.targets(change),
            num_heads=self.source.num_heads,
            seed=seed,
            device=torch.device("cpu"),
        )
        return known(found.r2)


def ridge(train: Tensor, val: Tensor, truth: Targets, tested: Targets) -> float:
    """Mean R2 of ridge regression; its penalty does best on the last fifth of the examples."""
    mean, std = train.double().mean(0), train.double().std(0).clamp(min=1e-8)
    train, val = ((part.double() - mean) / std for part in (train, val))
    cut, scores = round(0.8 * len(train)), []
    for fit, test in zip(truth.values.T, tested.values.T, strict=True):
        first, last = fit[:cut], fit[cut:]
        best = max(PENALTIES, key=lambda p: _r2(train[:cut], train[cut:], first, last, p))
        scores.append(_r2(train, val, fit, test, best))
    return known(scores)


def _r2(x: Tensor, other: Tensor, y: Tensor, wanted: Tensor, penalty: float) -> float:
    is_known, is_asked = ~y.isnan(), ~wanted.isnan()
    x, other, y, wanted = x[is_known], other[is_asked], y[is_known], wanted[is_asked]
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (y - y.mean()))
    left = (wanted - y.mean() - other @ weights).square().sum()
    return float(1 - left / (wanted - wanted.mean()).square().sum())


def known(r2: Sequence[float]) -> float:
    """The mean over the values; one that is not read at all counts as 0, however wrong it is."""
    return fmean(max(value, 0.0) if value == value else 0.0 for value in r2)


@torch_threads(1)
def states(run: Path, data: Path, seed: int) -> dict[str, float]:
    """What is read of the changes of states, which decides, and of the states themselves: R2."""
    reader = StateReader(open_encoder(run, EncoderOptions(device="cpu")), data)
    return {
        "state": reader.attentively(CHANGE, seed),
        "state_linear": reader.linearly(CHANGE),
        "now": reader.attentively(0, seed),
    }
