"""Data structures that packages exchange. More than two tensors never travel as a tuple."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats_ray.core.arrays import Float, Int
from tats_ray.core.late import Scalar

Metrics = Mapping[str, float]
Scalars = Mapping[str, Scalar]
"""Metrics that may still be on their device."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tokens stay visible, and how likely each token was: the action and its odds."""

    visible_idx: Int[Tensor, "B K"]
    """Distinct within a clip, in draw order."""
    log_prob: Float[Tensor, "B N"]
    """log pi of every token under the policy that drew, nats; each row sums to one after exp."""
    value: Float[Tensor, " B"]
    """The policy's estimate of the clip's reward before the draw; 0 where it has none."""

    @property
    def probability(self) -> Float[Tensor, "B N"]:
        """Of each token; sums to one over a clip."""
        return self.log_prob.exp()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The policy's current log-probabilities and value for some tokens, with gradients."""

    log_prob: Float[Tensor, "B N"]
    value: Float[Tensor, " B"]


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What the masked autoencoder predicts for hidden tokens, and how wrong it is."""

    prediction: Float[Tensor, "B M P"]
    """In normalised-pixel units, values ordered (frame, row, column, colour)."""
    hidden_idx: Int[Tensor, "B M"]
    """Those decoded, ascending; row m of `prediction` belongs to token `hidden_idx[m]`."""
    error: Float[Tensor, "B N"]
    """Mean squared error per token, float32; exactly 0 where visible or not decoded."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Mean over clips and decoded tokens [AdaMAE engine; method section 4]."""
        return self.error.sum() / self.hidden_idx.numel()


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What the autoencoder found while it learned from a batch; travels in `info`."""

    error: Float[Tensor, "B N"]
    """Of each token, before the update; carries no gradient. Where only a part of the hidden
    tokens is decoded, theirs is divided by that share, so that means over all stay right."""
    loss: Scalar
    """Mean over clips and hidden tokens."""
    grad_norm: Scalar
    """Length of the gradient of the latest optimiser step, before clipping; 0 before the first."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One batch of one-step episodes: what the policy saw, did and earned.

    State is the tokens, not the pixels, so that PPO's ratio compares policies and not embeddings.
    """

    tokens: Float[Tensor, "B N D"]
    visible_idx: Int[Tensor, "B K"]
    log_prob: Float[Tensor, "B N"]
    value: Float[Tensor, " B"]
    reward: Float[Tensor, "B N"]
    """Per-token reward; the clip's return is its mean over hidden tokens."""
    policy_version: int
    """Version of the weights that drew."""
    step: int
    """MAE step, counted from 0."""
    rank: int
    """The MAE learner's, or the slot that it did in an elastic run."""
    mae_step: int | None = None
    """MAE steps behind the weights that judged, where a frozen copy did; None: those of `step`."""
    masks_per_clip: int = 1
    """Rows that are draws for one and the same clip; they follow each other."""
    num_parts: int = 1
    """Batches of as many clips each that follow each other here, whoever made them."""
    drawn: Evaluation | None = None
    """What the policy that is about to learn from this said when it drew, with its graph."""

    def __post_init__(self) -> None:
        if len(self.value) % self.masks_per_clip:
            raise ValueError(
                f"{len(self.value)} rows cannot be grouped by {self.masks_per_clip} masks per clip"
            )

    @property
    def mae_lag(self) -> int:
        """How many MAE steps old the weights were that judged."""
        return 0 if self.mae_step is None else self.step - self.mae_step

    def is_finite(self) -> bool:
        """Whether all of its numbers are."""
        found = (self.tokens, self.log_prob, self.value, self.reward)
        return all(bool(torch.isfinite(tensor).all()) for tensor in found)

    @property
    def num_clips(self) -> int:
        """Distinct clips."""
        return len(self.value) // self.masks_per_clip

    def head(self, num_clips: int) -> Rollout:
        """The first clips, with all their masks: as random a choice as the batch itself."""
        part = self._map(lambda rows: rows[: num_clips * self.masks_per_clip])
        return part if num_clips == self.num_clips else replace(part, drawn=None)

    def head_of_each(self, share: float) -> Rollout:
        """The first clips of each part, rounded up: the same ones, whoever holds which parts."""
        num_clips = math.ceil(self.num_clips // self.num_parts * share)
        if self.num_parts == 1:
            return self.head(num_clips)
        kept = num_clips * self.masks_per_clip
        part = self._map(lambda t: t.unflatten(0, (self.num_parts, -1))[:, :kept].flatten(0, 1))
        return replace(part, drawn=None)

    def to(self, device: torch.device | str) -> Rollout:
        return self._map(lambda rows: rows.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Rollout:
        changed: dict[str, Any] = {n: change(getattr(self, n)) for n in _ROLLOUT_TENSORS}
        return replace(self, **changed)

    @staticmethod
    def concatenate(parts: Sequence[Rollout]) -> Rollout:
        """The clips of all parts in one batch; stamps are those of the first part."""
        if len(parts) == 1:
            return parts[0]
        tensors: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in _ROLLOUT_TENSORS
        }
        sizes = {part.num_clips / part.num_parts for part in parts}
        num_parts = sum(part.num_parts for part in parts) if len(sizes) == 1 else 1
        return replace(parts[0], **tensors, drawn=None, num_parts=num_parts)

    def to_arrays(self) -> dict[str, Any]:
        """Contiguous numpy arrays and ints: what crosses a process border.

        numpy has no bfloat16, so tokens of that type travel as their 16-bit patterns. What is not
        known is left out.
        """
        stamps = {f.name: getattr(self, f.name) for f in fields(self)}
        out: dict[str, Any] = {
            name: value
            for name, value in stamps.items()
            if name not in (*_ROLLOUT_TENSORS, "drawn") and value is not None
        }
        for name in _ROLLOUT_TENSORS:
            tensor: Tensor = getattr(self, name).detach().cpu().contiguous()
            if tensor.dtype == torch.bfloat16:
                tensor = tensor.view(torch.uint16)
            out[name] = tensor.numpy()
        return out

    @staticmethod
    def from_arrays(arrays: Mapping[str, Any]) -> Rollout:
        """The inverse of `to_arrays`; copies, since arrays from a shared store are read-only."""
        values = dict(arrays)
        for name in _ROLLOUT_TENSORS:
            array = np.array(values[name], copy=True)
            tensor = torch.from_numpy(array)
            values[name] = tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
        return Rollout(**values)

    @property
    def num_bytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in _ROLLOUT_TENSORS)


_ROLLOUT_TENSORS = ("tokens", "visible_idx", "log_prob", "value", "reward")


@dataclass
class Position:
    """Where a run is: everything that the random streams and the data order depend on."""

    epoch: int = 0
    batch: int = 0
    """Steps of this epoch that are done."""
    step: int = 0
    """Steps of all epochs that are done."""
    policy_version: int = 0
