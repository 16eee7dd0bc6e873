"""Fine-tuning: owner of the classifier, its optimiser and schedule, and the loop over epochs.

As in pre-training, randomness is named by (seed, purpose, step, rank), so the position in the run
is all that a checkpoint needs beside the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.core.arrays import Float, Int, UInt8
from tats_ray.core.devices import autocast
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.seeds import derive, stream
from tats_ray.core.types import Position
from tats_ray.models.classifier import VideoClassifier
from tats_ray.ops.mixing import blend, cut_in, draw_mix, soft_targets
from tats_ray.ops.optim import layered_adamw
from tats_ray.ops.patches import imagenet_normalize, patchify, unit_pixels
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.training.stopwatch import Stopwatch


@runtime_checkable
class LabelledBatch(Protocol):
    """A batch of labelled clips, as the loader yields it."""

    @property
    def pixels(self) -> UInt8[Tensor, "B C F H W"]: ...

    @property
    def label(self) -> Int[Tensor, " B"]: ...

    @property
    def num_replaced(self) -> int: ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Videos that cannot be read, with reasons."""


class ClassifierLearner:
    """Learns from labelled clips, one optimiser step a batch [method section 9].

    Args:
        network: trained in place.
        steps_per_epoch: with `optim.warmup_epochs` and `optim.epochs` it places the schedule.
        world_size: ranks that share a step; the learning rate scales with all their clips / 256.
        wrapped: `network` inside DistributedDataParallel; default: `network` itself.
        all_finite: agrees over all ranks whether a loss is finite; default: this rank's word.
    """

    def __init__(
        self,
        network: VideoClassifier,
        config: FinetuneConfig,
        *,
        steps_per_epoch: int,
        rank: int = 0,
        world_size: int = 1,
        wrapped: nn.Module | None = None,
        all_finite: Callable[[bool], bool] | None = None,
    ) -> None:
        self.network = network
        self.wrapped = wrapped if wrapped is not None else network
        self.config = config
        self.rank = rank
        self.device = network.head.weight.device
        self.grid = network.grid
        optim = config.optim
        self.scale = optim.batch_size * world_size / 256
        self.warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
        self.total_steps = optim.epochs * steps_per_epoch
        self.optimizer = layered_adamw(
            network,
            depth=len(network.encoder.blocks),
            layer_decay=optim.layer_decay,
            lr=optim.base_lr * self.scale,
            betas=optim.betas,
            weight_decay=optim.weight_decay,
        )
        self.all_finite = all_finite or (lambda is_finite: is_finite)
        self.average = copy.deepcopy(network).requires_grad_(False) if optim.ema_decay else None
        """Moving average of the weights, where one is kept."""
        self.step = 0
        """Optimiser steps taken."""

    @property
    def lr(self) -> float:
        """Learning rate of the next step, of the head; lower layers take a share of it."""
        return warmup_cosine(
            self.step,
            base=self.config.optim.base_lr * self.scale,
            minimum=self.config.optim.min_lr * self.scale,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
        )

    @property
    def best(self) -> VideoClassifier:
        """What is measured: the moving average where one is kept."""
        return self.network if self.average is None else self.average

    def learn(
        self, clips: UInt8[Tensor, "B C F H W"], labels: Int[Tensor, " B"]
    ) -> dict[str, float]:
        """One step towards these labels; scalars about it.

        Raises:
            NonFiniteError: for a loss that is not finite on any rank; nothing was updated.
        """
        how, lr = self.config.augment, self.lr
        mix = draw_mix(
            np.random.default_rng(derive(self.config.seed, "mix", self.step, self.rank)),
            size=clips.shape[-1],
            mixup=how.mixup,
            cutmix=how.cutmix,
            switch=how.switch,
            mix=how.mix,
        )
        labels = labels.to(self.device)
        targets = soft_targets(
            labels, self.network.num_classes, share=mix.share, smoothing=how.label_smoothing
        )
        cut = cut_in(clips.to(self.device, non_blocking=True), mix, how.cut_axes)
        pixels = blend(self.pixels(cut), mix)
        draws = stream(self.config.seed, "drop_path", self.step, self.rank, device=self.device)
        self.wrapped.train()
        with autocast(self.device, self.config.optim.precision):
            logits = self.wrapped(pixels, draws)
        logits = logits.float()
        loss = cross_entropy(logits, targets)
        if not self.all_finite(bool(torch.isfinite(loss))):
            raise NonFiniteError(
                f"the loss is {loss.item()} at step {self.step}",
                is_own=not torch.isfinite(loss),
            )
        loss.backward()
        norm = self._step(lr)
        # Of a mixed clip, the label that most of it is of counts as right.
        owner = labels if mix.share >= 0.5 else labels.flip(0)
        return {
            "finetune/loss": loss.item(),
            "finetune/lr": lr,
            "finetune/grad_norm": norm,
            "finetune/top1": (logits.argmax(1) == owner).float().mean().item(),
        }

    def pixels(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N P"]:
        """Clips as the network takes them."""
        return imagenet_normalize(unit_pixels(patchify(clips, self.grid)))

    def _step(self, lr: float) -> float:
        optim = self.config.optim
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        limit = optim.clip_grad or float("inf")
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            with torch.no_grad():
                for mean, new in zip(
                    self.average.parameters(), self.network.parameters(), strict=True
                ):
                    mean.lerp_(new, 1.0 - optim.ema_decay)
        return float(norm)

    @torch.no_grad()
    def logits(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B classes"]:
        """What the measured network says; nothing is mixed or dropped."""
        network = self.best.eval()
        with autocast(self.device, self.config.optim.precision):
            found: Tensor = network(self.pixels(clips.to(self.device)))
        return found.float()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "numbers": {"step": self.step},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["numbers"]["step"])


@runtime_checkable
class FinetuneHooks(Protocol):
    """What happens around the recipe. Hooks of all ranks are called at the same points."""

    def on_batch(
        self, loop: FinetuneLoop, metrics: Mapping[str, float], batch: LabelledBatch
    ) -> None:
        """After every batch. Raises `learning.loop.Halt` to end the loop there."""

    def on_epoch(self, loop: FinetuneLoop) -> None:
        """After every epoch."""


class FinetuneLoop:
    """One rank's share of fine-tuning.

    Args:
        batches: (epoch, batches done) -> the rest of that epoch's batches for this rank.
    """

    def __init__(
        self,
        *,
        epochs: int,
        batches: Callable[[int, int], Iterator[LabelledBatch]],
        learner: ClassifierLearner,
        hooks: FinetuneHooks,
    ) -> None:
        self.epochs = epochs
        self.batches = batches
        self.learner = learner
        self.hooks = hooks
        self.at = Position()
        self.stopwatch = Stopwatch.of(learner.device)

    def run(self) -> None:
        """From the present position to the last epoch, unless a hook raises `Halt`."""
        while self.at.epoch < self.epochs:
            batches = self.batches(self.at.epoch, self.at.batch)
            while True:
                with self.stopwatch("data"):
                    batch = next(batches, None)
                if batch is None:
                    break
                with self.stopwatch("network"):
                    metrics = self.learner.learn(batch.pixels, batch.label)
                self.at.batch += 1
                self.at.step += 1
                self.hooks.on_batch(self, metrics, batch)
            self.at.epoch += 1
            self.at.batch = 0
            self.hooks.on_epoch(self)
