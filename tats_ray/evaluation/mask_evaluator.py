"""Measurements on validation clips under fixed draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tats_ray.config.schema import RunConfig
from tats_ray.core.arrays import Bool, Float, Int, UInt8
from tats_ray.core.devices import Precision, autocast
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.dataset import collate
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import token_motion
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.oracle import with_motion
from tats_ray.models.zoo import num_visible, token_grid
from tats_ray.ops.measures import chance_ratio, effective_count, overlap, ranking_auc
from tats_ray.ops.patches import patchify
from tats_ray.ops.selection import draw_visible, entropy, is_visible

_NUM_DRAWS = 16
"""Draws per clip behind the motion ratio: a single one leaves an error of some 0.1."""

# The masks of validation are the same in every run, whatever its seed: errors can be compared.
_VALIDATION_SEED = 0


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Clips that are measured again and again."""

    clips: UInt8[Tensor, "B C F H W"]
    moving: Bool[Tensor, "B N"] | None
    """Tokens that truly move, where that is known."""
    motion: Float[Tensor, "B N"] | None = None
    """The share of each token's pixels that does."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Videos that cannot be read, with reasons; others are measured in their place."""


class Evaluator:
    """Measures autoencoder and policy on the same clips every time.

    Args:
        num_visible: tokens shown; also to the policy, so tube masks are measured at this count.
    """

    def __init__(
        self,
        validation: ValidationSet,
        num_visible: int,
        *,
        batch_size: int,
        precision: Precision = "float32",
    ) -> None:
        self.validation = validation
        self.num_visible = num_visible
        self.batch_size = batch_size
        self.precision: Precision = precision
        self._mean_error: float | None = None

    @torch.no_grad()
    def measure(self, mae: MaskedAutoencoder, policy: MaskPolicy) -> dict[str, float]:
        """Scalars by name; `docs/metrics.md` explains each. Leaves both networks as they are."""
        device = next(mae.parameters()).device
        uniform = FixedPolicy(mae.grid)
        fixed = stream(_VALIDATION_SEED, "validation", "fixed")
        drawn = stream(_VALIDATION_SEED, "validation", "policy")
        errors, own_errors, carrying, log_probs, selections = [], [], [], [], []
        for first in range(0, len(self.validation.clips), self.batch_size):
            rows = slice(first, first + self.batch_size)
            clips = self.validation.clips[rows].to(device)
            motion = None if self.validation.motion is None else self.validation.motion[rows]
            with autocast(device, self.precision):
                tokens = mae.embed(clips)
                random = uniform.act(tokens, self.num_visible, generator=fixed)
                own = with_motion(policy, motion).act(tokens, self.num_visible, generator=drawn)
                reconstruction = mae(clips, random.visible_idx)
                errors.append(reconstruction.loss * len(clips))
                own_errors.append(mae(clips, own.visible_idx).loss * len(clips))
            carrying.append(effective_count(reconstruction.error).cpu())
            log_probs.append(own.log_prob.float().cpu())
            selections.append(own.visible_idx.cpu())
        num_clips, num_tokens = len(self.validation.clips), mae.grid.num_tokens
        # Only hidden tokens have an error, and the visible ones were drawn uniformly.
        scale = num_tokens / (num_tokens - self.num_visible)
        return {
            "error": float(torch.stack(errors).sum()) / num_clips,
            "own_error": float(torch.stack(own_errors).sum()) / num_clips,
            "error_tokens": float(torch.cat(carrying).mean()) * scale,
            **self._of_the_mean(mae),
            **self._policy_measures(torch.cat(log_probs), torch.cat(selections)),
        }

    def _of_the_mean(self, mae: MaskedAutoencoder) -> dict[str, float]:
        """The variance of the targets between clips, at each place; it needs two clips.

        In float64, since a still background leaves small differences of large sums.
        """
        clips = self.validation.clips
        if self._mean_error is None and len(clips) > 1:
            device = next(mae.parameters()).device
            total: Tensor | float = 0.0
            squares: Tensor | float = 0.0
            for some in clips.split(self.batch_size):
                targets = mae.targets(patchify(some.to(device), mae.grid)).double()
                total, squares = total + targets.sum(0), squares + targets.square().sum(0)
            assert isinstance(total, Tensor)
            variance = (squares - total.square() / len(clips)) / (len(clips) - 1)
            self._mean_error = float(variance.mean())
        return {} if self._mean_error is None else {"mean_error": self._mean_error}

    def _policy_measures(
        self, log_prob: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
    ) -> dict[str, float]:
        num_tokens = log_prob.shape[1]
        drawn = is_visible(visible_idx, num_tokens)
        spread = entropy(log_prob)
        measures = {
            "entropy": float(spread.mean()) / math.log(num_tokens),
            "effective_tokens": float(spread.exp().mean()),
        }
        if len(drawn) > 1:
            measures["clip_overlap"] = overlap(drawn, drawn.roll(1, 0))
        again = stream(_VALIDATION_SEED, "validation", "again")
        more = [
            is_visible(draw_visible(log_prob, visible_idx.shape[1], generator=again), num_tokens)
            for _ in range(_NUM_DRAWS - 1)
        ]
        measures["draw_overlap"] = overlap(drawn, more[0])
        if self.validation.moving is not None and self.validation.moving.any():
            moving = self.validation.moving
            all_drawn = torch.cat([drawn, *more])
            measures["motion_ratio"] = chance_ratio(all_drawn, moving.repeat(_NUM_DRAWS, 1))
            measures["motion_auc"] = ranking_auc(log_prob, self.validation.moving)
        return measures


def validation_set(config: RunConfig, grid: TokenGrid, entries: list[VideoEntry]) -> ValidationSet:
    """The first `eval.num_clips` readable videos of a list, their middle, centred.

    Where a true motion mask lies beside every one of them, tokens that move are marked.
    """
    dataset = clip_dataset(config.data, entries[: config.eval.num_clips], is_centered=True)
    batch = collate([dataset[0, index] for index in range(len(dataset))])
    motion = [dataset.motion(index) for index in batch.index.tolist()]
    known = [mask for mask in motion if mask is not None]
    if len(known) < len(motion):
        return ValidationSet(batch.pixels, None, None, batch.unreadable)
    shares = torch.stack([torch.from_numpy(token_motion(mask, grid)) for mask in known])
    return ValidationSet(batch.pixels, shares >= config.eval.moving_share, shares, batch.unreadable)


def evaluator(config: RunConfig, entries: list[VideoEntry]) -> Evaluator | None:
    """The measure of a run; None where there is no validation list."""
    if not entries:
        return None
    grid = token_grid(config.data, config.model)
    return Evaluator(
        validation_set(config, grid, entries),
        num_visible(config.sampler, grid),
        batch_size=config.optim.batch_size,
        precision=config.loop.precision,
    )
