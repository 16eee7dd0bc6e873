"""Reads states off features: linear classifiers and ridge regression, and an attentive probe.

All values are read at once, each by parameters of its own. What is to be chosen is chosen on the
last fifth of the training examples, which come from other episodes than most of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tats_ray.core.arrays import Bool, Float, Int
from tats_ray.core.seeds import derive, stream
from tats_ray.evaluation.states.targets import Targets
from tats_ray.models.probe_heads import AttentiveHead, HeadStack
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.ops.scores import confusion_matrix, weighted_f1
from tats_ray.ops.stacked import StackedAdamW

HELD_OUT = 0.2
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried for classifiers and for ridge regression, for features of unit variance."""
ATTENTIVE = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 64, "steps": 400, "warmup_steps": 40}


@dataclass(frozen=True)
class StateScores:
    """Of one way to read, for each value: shares from 0 to 1, and R2, which may be negative."""

    f1: tuple[float, ...]
    accuracy: tuple[float, ...]
    r2: tuple[float, ...]


@dataclass(frozen=True)
class _Readings:
    """Predictions for each example and value."""

    classes: Int[Tensor, "n T"]
    values: Float[Tensor, "n T"]

    def score(self, truth: Targets) -> StateScores:
        """Of what is known."""
        f1, accuracy, r2 = [], [], []
        classes, counts = truth.classes, truth.num_classes.tolist()
        for at, known in enumerate(~truth.values.isnan().T):
            confusion = confusion_matrix(
                self.classes[known, at], classes[known, at], int(counts[at])
            )
            f1.append(weighted_f1(confusion))
            accuracy.append(float(confusion.diagonal().sum() / confusion.sum()))
            true, read = truth.values[known, at], self.values[known, at]
            r2.append(float(1 - (true - read).square().sum() / (true - true.mean()).square().sum()))
        return StateScores(tuple(f1), tuple(accuracy), tuple(r2))


def read_majority(train: Targets, val: Targets) -> StateScores:
    """Without any feature: the commonest class, and the mean."""
    common = [int(column[column >= 0].mode().values) for column in train.classes.T]
    shape = len(val.values), len(train.names)
    means = train.values.nanmean(0)
    return _Readings(torch.tensor(common).expand(shape), means.expand(shape)).score(val)


def read_linearly(
    train: Float[Tensor, "n D"], val: Float[Tensor, "m D"], truth: Targets, tested: Targets
) -> StateScores:
    """Softmax regression for the classes and ridge regression for the values."""
    mean, std = train.double().mean(0), train.double().std(0).clamp(min=1e-8)
    train, val = ((part.double() - mean) / std for part in (train, val))
    cut = round((1 - HELD_OUT) * len(train))
    fit, held = torch.arange(cut), torch.arange(cut, len(train))
    trials = [_linear(train[fit], truth.take(fit), penalty) for penalty in PENALTIES]
    scores = [trial.read(train[held]).score(truth.take(held)) for trial in trials]
    # A value that is unknown in all that was held out has no score, and gets the first penalty.
    accuracy, r2 = (
        torch.tensor([getattr(score, name) for score in scores]).nan_to_num(-torch.inf)
        for name in ("accuracy", "r2")
    )
    penalties = torch.tensor(PENALTIES, dtype=torch.float64)
    chosen = penalties[accuracy.argmax(0)], penalties[r2.argmax(0)]
    return _linear(train, truth, *chosen).read(val).score(tested)


@dataclass(frozen=True)
class _Linear:
    """Maps from features and a constant."""

    logits: Float[Tensor, "T D C"]
    values: Float[Tensor, "D T"]

    def read(self, features: Float[Tensor, "n D"]) -> _Readings:
        x = _with_one(features)
        return _Readings(torch.einsum("nd,tdc->ntc", x, self.logits).argmax(-1), x @ self.values)


def _with_one(features: Float[Tensor, "n D"]) -> Float[Tensor, "n E"]:
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def _linear(
    features: Float[Tensor, "n D"],
    truth: Targets,
    penalty: float | Float[Tensor, " T"],
    ridge_penalty: float | Float[Tensor, " T"] | None = None,
) -> _Linear:
    x, num_values = _with_one(features), len(truth.names)
    penalties = torch.as_tensor(penalty).double().expand(num_values)
    ridge = penalties if ridge_penalty is None else torch.as_tensor(ridge_penalty).double()
    is_free = torch.ones(x.shape[1], dtype=x.dtype)
    is_free[-1] = 0  # the constant is not pulled towards 0
    columns = []
    for at, known in enumerate(~truth.values.isnan().T):
        part, value = x[known], truth.values[known, at]
        gram = part.T @ part + torch.diag(is_free * ridge[at] * len(part))
        columns.append(torch.linalg.lstsq(gram, part.T @ value[:, None]).solution[:, 0])
    return _Linear(_softmax_regression(x, truth, penalties, is_free), torch.stack(columns, 1))


def _softmax_regression(
    x: Float[Tensor, "n D"],
    truth: Targets,
    penalties: Float[Tensor, " T"],
    is_free: Float[Tensor, " D"],
) -> Float[Tensor, "T D C"]:
    """All values in one problem, whose parts do not touch each other."""
    classes, is_class = truth.classes, _is_class(truth)
    share = one_hot(classes.clamp(min=0), is_class.shape[1]) * (classes >= 0)[..., None]
    share = share / (classes >= 0).sum(0).clamp(min=1)[:, None]  # of none known: no share
    weights = x.new_zeros(len(truth.names), x.shape[1], is_class.shape[1]).requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = torch.einsum("nd,tdc->ntc", x, weights).masked_fill(~is_class, -1e9)
        pull = (penalties[:, None, None] * is_free[:, None] * weights.square()).sum() / 2
        total = pull - (share * logits.log_softmax(-1)).sum()
        total.backward()
        return total

    optimizer.step(loss)
    found = weights.detach().masked_fill(~is_class[:, None], 0)
    found[:, -1].masked_fill_(~is_class, -1e9)  # the constant, so that no other column is read
    return found


def _is_class(truth: Targets) -> Bool[Tensor, "T C"]:
    """Which of the columns belong to each value."""
    return torch.arange(int(truth.num_classes.max())) < truth.num_classes[:, None]


def read_attentively(
    train: Float[Tensor, "n N D"],
    val: Float[Tensor, "m N D"],
    truth: Targets,
    tested: Targets,
    *,
    num_heads: int,
    seed: int,
    device: torch.device,
) -> StateScores:
    """A query for each value, and a linear layer for its classes and for the value itself.

    Channels are standardised first: what tells clips apart is small beside what all have in common.
    """
    middle = torch.stack([clip.float().mean(0) for clip in train]).mean(0)
    spread = torch.stack([clip.float().sub(middle).square().mean(0) for clip in train]).mean(0)

    def shown(part: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return ((part.float() - middle) / spread.sqrt().clamp(min=1e-6)).to(device)

    is_class = _is_class(truth).to(device)
    mean, std = truth.values.nanmean(0), _std(truth.values)
    classes = truth.classes.to(device)
    values = ((truth.values - mean) / std).nan_to_num(0).float().to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", "state probe"))
        head = AttentiveHead(train.shape[-1], is_class.shape[1] + 1, num_heads).to(device)
    stack = HeadStack(head, len(truth.names))
    ones = torch.ones(len(truth.names), device=device)
    optimizer = StackedAdamW(
        stack.parameters, ones * ATTENTIVE["lr"], ones * ATTENTIVE["weight_decay"]
    )
    for step, part in enumerate(_batches(len(train), seed), start=1):
        read = stack(shown(train[part]))
        logits = read[..., :-1].masked_fill(~is_class[:, None], -1e9)
        known = classes[part].T
        loss = cross_entropy(logits.flatten(0, 1), known.flatten(), ignore_index=-1)
        off = (read[..., -1] - values[part].T).square() * (known >= 0)
        (len(truth.names) * (loss + off.sum() / (known >= 0).sum().clamp(min=1))).backward()
        factor = warmup_cosine(
            step,
            base=1.0,
            minimum=0.0,
            warmup_steps=int(ATTENTIVE["warmup_steps"]),
            total_steps=int(ATTENTIVE["steps"]) + 1,
        )
        optimizer.step(factor)
    with torch.no_grad():
        read = torch.cat([stack(shown(part)).cpu() for part in val.split(64)], 1)
    logits = read[..., :-1].masked_fill(~is_class[:, None].cpu(), -1e9)
    return _Readings(logits.argmax(-1).T, read[..., -1].T.double() * std + mean).score(tested)


def _std(values: Float[Tensor, "n T"]) -> Float[Tensor, " T"]:
    return (values - values.nanmean(0)).square().nanmean(0).sqrt()


def _batches(total: int, seed: int) -> Sequence[Int[Tensor, " B"]]:
    """As many as there are steps, epoch after epoch."""
    num_steps, size = int(ATTENTIVE["steps"]), min(int(ATTENTIVE["batch_size"]), total)
    per_epoch = total // size
    return [
        part
        for epoch in range(ceil(num_steps / per_epoch))
        for part in torch.randperm(total, generator=stream(seed, "state probe", epoch)).split(size)
        if len(part) == size
    ][:num_steps]


def principal_components(
    train: Float[Tensor, "n D"], val: Float[Tensor, "m D"], width: int
) -> tuple[Float[Tensor, "n K"], Float[Tensor, "m K"]]:
    """The first `width` components of the training part, or fewer where there are fewer."""
    mean = train.mean(0)
    train, val = train - mean, val - mean
    squares, left = torch.linalg.eigh((train @ train.T).double())
    kept = (squares > 1e-6 * squares[-1]).nonzero()[-width:, 0]
    basis = left[:, kept] / squares[kept].sqrt()
    return left[:, kept] * squares[kept].sqrt(), (val @ train.T).double() @ basis
