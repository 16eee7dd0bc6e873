"""Owner of the autoencoder, its optimiser and its schedule; the scorer of a run's environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.arrays import Bool, Float, Int, UInt8
from tats_ray.core.devices import Precision, autocast
from tats_ray.core.errors import NonFiniteError, UsageError
from tats_ray.core.late import Brake, Scalar, expect
from tats_ray.core.seeds import stream
from tats_ray.core.types import Reconstruction, TrainingStep
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.sharding import load_whole, load_whole_optimizer, whole
from tats_ray.ops.optim import adamw
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.ops.selection import some_hidden


def optimizer_steps(loop: LoopConfig, batches_per_epoch: int) -> int:
    """MAE optimiser steps of a whole run: one per batch, or fewer with [A9]'s other reading."""
    if loop.mae_step_every_batch:
        return loop.epochs * batches_per_epoch
    alone = min(loop.mae_only_epochs, loop.epochs)
    joint = loop.epochs - alone
    return alone * batches_per_epoch + joint * ceil(batches_per_epoch / loop.mae_steps_per_update)


def accumulates(loop: LoopConfig) -> bool:
    """Whether gradients of several steps of the loop wait for one optimiser step [A9]."""
    return loop.mae_steps_per_update > 1 and not loop.mae_step_every_batch


class MAELearner:
    """Scores selections by reconstructing clips, and trains on those given to `learn`.

    By itself, every `learn` is a whole step. A loop whose steps have several batches, or that must
    know that its environment learns from each of them once, calls `begin_slot` before each batch.

    Args:
        mae: the network.
        steps_per_epoch: optimiser steps of one epoch; with `optim.warmup_epochs` it places the
            schedule.
        total_steps: optimiser steps of the whole run.
        global_batch: clips per optimiser step over all ranks; scales the learning rate by /256.
        wrapped: `mae` inside DistributedDataParallel; default: `mae` itself, which may be sharded.
        all_finite: whether a loss is finite on every rank, from whether it is on this one, without
            leaving the device; all ranks ask together. Default: this rank is the only one.
        weight: of each batch's gradient before the mean over ranks; ranks per slot, which makes
            that the mean over slots.
        decode_share: of the hidden tokens, to learn from; the streams under `seed` draw them.
    """

    def __init__(
        self,
        mae: MaskedAutoencoder,
        optim: OptimConfig,
        *,
        steps_per_epoch: int,
        total_steps: int,
        global_batch: int,
        precision: Precision = "float32",
        wrapped: nn.Module | None = None,
        all_finite: Callable[[Bool[Tensor, ""]], Bool[Tensor, ""]] | None = None,
        weight: float = 1.0,
        decode_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.mae = mae
        self.network = wrapped if wrapped is not None else mae
        self.precision: Precision = precision
        self.device = next(mae.parameters()).device
        self.optim = optim
        self.scale = global_batch / 256
        self.warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
        self.total_steps = total_steps
        self.optimizer = adamw(
            mae, lr=optim.base_lr * self.scale, betas=optim.betas, weight_decay=optim.weight_decay
        )
        self.all_finite = all_finite or (lambda is_finite: is_finite)
        self.brake = Brake()
        self.folds_scale = self.device.type == "cuda"
        """Whether the optimiser clips and averages gradients as it reads them: one pass over them
        less, and another last bit."""
        self.weight = weight
        self.decode_share, self.seed = decode_share, seed
        self._draw: tuple[int, int] | None = None
        self._is_last_slot = True
        self._is_slot_done: bool | None = None
        """None: no loop says where a slot begins."""
        self._are_finite: list[Tensor] = []
        """Losses of the present step's slots that are done."""
        self._is_fine: Tensor | None = None
        """Whether all losses since the last optimiser step are finite."""
        self.step = 0
        """Optimiser steps taken."""
        self.pending = 0
        """Steps of the loop whose gradient waits for the next optimiser step."""
        self.accumulation_steps = 1
        """Steps of the loop per optimiser step; more than one averages their gradients [A9]."""
        self.grad_norm: Scalar = 0.0
        """Of the latest optimiser step, before clipping."""

    @property
    def lr(self) -> float:
        """Learning rate of the next optimiser step."""
        return warmup_cosine(
            self.step,
            base=self.optim.base_lr * self.scale,
            minimum=self.optim.min_lr * self.scale,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
        )

    def embed(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N D"]:
        """What the policy observes: token embeddings before this batch's update."""
        with autocast(self.device, self.precision):
            return self.mae.embed(clips.to(self.device, non_blocking=True))

    @torch.no_grad()
    def score(
        self, clips: UInt8[Tensor, "B C F H W"], visible_idx: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B N"]:
        """Error per token, without learning from it."""
        with autocast(self.device, self.precision):
            reconstruction: Reconstruction = self.mae(
                clips.to(self.device, non_blocking=True), visible_idx.to(self.device)
            )
        return reconstruction.error

    def begin_slot(self, index: int, count: int, draw: tuple[int, int] | None = None) -> None:
        """Say that the next batch is number `index` of the `count` that this rank has in a step.

        One `learn` may follow. Ranks may have different counts: they meet in the last slot.

        Args:
            draw: step and slot, which name the stream that draws the tokens to decode; default:
                the optimiser's step.
        """
        self._draw = draw
        if index == 0:
            self._are_finite = []
        self._is_last_slot = index == count - 1
        self._is_slot_done = False

    @torch.enable_grad()
    def learn(
        self, clips: UInt8[Tensor, "B C F H W"], visible_idx: Int[Tensor, "B K"]
    ) -> TrainingStep:
        """Score, and take one step towards less error, or this slot's part of one.

        Raises:
            NonFiniteError: for a loss that is not finite on any rank; nothing was updated.
            UsageError: for a second call in one slot.
        """
        if self._is_slot_done:
            raise UsageError(
                "the environment (env.id) called scorer.learn twice for one batch; call it once in "
                "each step, and scorer.score to score other masks"
            )
        if self._is_slot_done is not None:
            self._is_slot_done = True
        clips = clips.to(self.device, non_blocking=True)
        visible_idx = visible_idx.to(self.device)
        with autocast(self.device, self.precision), self._exchange():
            decoded = self._decoded(visible_idx)
            reconstruction: Reconstruction = self.network(clips, visible_idx, *decoded)
            self._descend(reconstruction.loss)
        error, loss = reconstruction.error.detach(), reconstruction.loss.detach()
        if decoded:
            error = error * ((error.shape[1] - visible_idx.shape[1]) / decoded[0].shape[1])
        return TrainingStep(error, loss, self.grad_norm)

    def _decoded(self, visible_idx: Int[Tensor, "B K"]) -> tuple[Tensor, ...]:
        """The tokens to decode, where those are not all that are hidden."""
        if self.decode_share == 1:
            return ()
        draws = stream(self.seed, "decode", *(self._draw or (self.step, 0)), device=self.device)
        num_tokens = self.mae.grid.num_tokens
        return (some_hidden(visible_idx, num_tokens, self.decode_share, generator=draws),)

    def _exchange(self) -> AbstractContextManager[None]:
        """Ranks meet once in a step, at the last slot of each: they may have different numbers."""
        if self._is_last_slot or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _descend(self, loss: Float[Tensor, ""]) -> None:
        self._are_finite.append(torch.isfinite(loss.detach()))
        if self._is_last_slot:
            are_finite, self._are_finite = self._are_finite, []
            self._check(torch.stack(are_finite).all(), loss.detach())
        loss.backward(torch.full_like(loss, self.weight))
        if not self._is_last_slot:
            return
        self.pending += 1
        if self.pending >= self.accumulation_steps:
            self.finish_step()

    def _check(self, is_fine: Bool[Tensor, ""], loss: Float[Tensor, ""]) -> None:
        """Of all slots of a step, on all ranks."""
        step = self.step

        def error() -> NonFiniteError:
            found = f"the MAE loss is {loss.item()} at its step {step}"
            return NonFiniteError(found, is_own=not is_fine)

        are_all_fine = self.all_finite(is_fine)
        expect(are_all_fine, error)
        self._is_fine = are_all_fine if self._is_fine is None else self._is_fine & are_all_fine

    def finish_step(self) -> None:
        """Apply the mean of the gradients that have gathered; nothing when there are none."""
        if not self.pending:
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        norm, divisor = self._folded() if self.folds_scale else (self._scaled(), None)
        assert self._is_fine is not None  # something is pending
        self.brake.step(self.optimizer, self._is_fine, divisor)
        self._is_fine = None
        self.optimizer.zero_grad(set_to_none=True)
        self.grad_norm = whole(norm)
        self.step += 1
        self.pending = 0

    def _scaled(self) -> Float[Tensor, ""]:
        """Average and clip the gradients in place; their norm in between."""
        parameters = [*self.mae.parameters()]
        # Every parameter takes part in every batch.
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.pending > 1:
            torch._foreach_div_(gradients, self.pending)
        norm = nn.utils.get_total_norm(gradients)
        if self.optim.clip_grad:
            nn.utils.clip_grads_with_norm_(parameters, self.optim.clip_grad, norm)
        return norm

    def _folded(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Norm of the mean gradient, and what is left to divide gradients by, if anything."""
        gradients = [p.grad for p in self.mae.parameters() if p.grad is not None]
        norm, limit = whole(nn.utils.get_total_norm(gradients)) / self.pending, self.optim.clip_grad
        if limit:
            return norm, ((norm + 1e-6) / limit).clamp_min(1.0) * self.pending
        return norm, torch.full_like(norm, self.pending) if self.pending > 1 else None

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors; a collective where the network is sharded."""
        return {
            "network": whole(self.mae.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "numbers": {"step": self.step},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_whole(self.mae, state["network"])
        load_whole_optimizer(self.optimizer, state["optimizer"])
        self.step = int(state["numbers"]["step"])
