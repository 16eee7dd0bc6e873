"""Heads on frozen features, a whole grid of them in one pass.

Deviation: features are computed once, so training clips are not cropped and mirrored anew in every
epoch [method section 9]; several views of each training video stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tats_ray.core.arrays import Float, Int
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.seeds import derive, stream
from tats_ray.evaluation.probe_protocols import HeadName, ProbeRecipe
from tats_ray.models.probe_heads import AttentiveHead, HeadStack, linear_head, norm_head
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.ops.stacked import StackedAdamW, StackedOptimizer, StackedSGD

LARS_BATCH = 4096
"""From this batch on SGD is LARS [method section 9]."""
_BATCH_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Examples:
    """Labelled features."""

    features: Float[Tensor, "n V *axes"]
    labels: Int[Tensor, " n"]

    def take(self, index: Int[Tensor, " k"]) -> Examples:
        return Examples(self.features[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


class Probe:
    """Heads of a whole grid behind one norm that learns nothing but the features' moments."""

    def __init__(
        self,
        recipe: ProbeRecipe,
        grid: Sequence[tuple[float, float]],
        *,
        width: int,
        num_heads: int,
        num_classes: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.recipe = recipe
        self.grid = list(grid)
        self.seed = seed
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "init", "probe"))
            makers: dict[HeadName, Callable[[], nn.Module]] = {
                "batch_norm": lambda: linear_head(width, num_classes),
                "layer_norm": lambda: norm_head(width, num_classes),
                "attentive": lambda: AttentiveHead(width, num_classes, num_heads),
            }
            head = makers[recipe.head]()
        self.norm: nn.Module = nn.Identity()
        if recipe.head == "batch_norm":
            self.norm = nn.BatchNorm1d(width, eps=_BATCH_NORM_EPS, affine=False).to(device)
        self.heads = HeadStack(head.to(device), len(self.grid))

    def fit(self, train: Examples) -> None:
        """All epochs. Batches depend on the seed alone, views of a video are drawn alike.

        Raises:
            NonFiniteError: when not a single head has a finite loss.
        """
        num_batches = ceil(len(train) / self.recipe.batch_size)
        optimizer = self._optimizer(ceil(len(train) / num_batches))
        total = self.recipe.epochs * num_batches
        warmup = min(self.recipe.warmup_epochs * num_batches, total - 1)
        step = 0
        for epoch in range(self.recipe.epochs):
            draw = stream(self.seed, "probe", epoch)
            order = torch.randperm(len(train), generator=draw)
            views = torch.randint(train.features.shape[1], (len(train),), generator=draw)
            for part in order.tensor_split(num_batches):
                step += 1  # a rate of 0 at the first step would waste an epoch of one batch
                factor = warmup_cosine(
                    step, base=1.0, minimum=0.0, warmup_steps=warmup, total_steps=total + 1
                )
                features = train.features[part, views[part]].to(self.device).float()
                losses = self._losses(features, train.labels[part].to(self.device))
                if not losses.isfinite().any():
                    raise NonFiniteError(
                        f"no head has a finite loss in epoch {epoch}; use lower learning rates"
                    )
                losses.sum().backward()
                optimizer.step(factor)
        self.norm.eval()

    def _losses(
        self, features: Float[Tensor, "B ..."], labels: Int[Tensor, " B"]
    ) -> Float[Tensor, " H"]:
        logits = self.heads(self.norm(features))
        each = cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
        return each.view(len(logits), -1).mean(1)

    def _optimizer(self, batch: int) -> StackedOptimizer:
        pairs = torch.tensor(self.grid, dtype=torch.float32, device=self.device)
        lr, decay = pairs[:, 0] * batch / 256, pairs[:, 1]
        if self.recipe.head == "batch_norm":
            trust = 0.001 if batch >= LARS_BATCH else 0.0
            return StackedSGD(self.heads.parameters, lr, decay, trust=trust)
        return StackedAdamW(self.heads.parameters, lr, decay)

    @torch.no_grad()
    def scores(self, features: Float[Tensor, "n V *axes"]) -> Float[Tensor, "H n V C"]:
        """Softmax scores of every view, float64; one video at a time."""
        rows = []
        for views in features:
            logits = self.heads(self.norm(views.to(self.device).float()))
            rows.append(logits.double().softmax(-1).cpu())
        return torch.stack(rows, dim=1)
