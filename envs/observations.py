"""What an agent sees of a clip: scalars per token, embeddings, or the pixels."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.ops.patches import patchify, unit_pixels

KINDS = ("features", "tokens", "clip")

FEATURES: tuple[str, ...] = ("motion energy", "contrast", "brightness")
ROUND_FEATURES: tuple[str, ...] = ("is visible", "last error")
"""What episodes of several rounds add to each token, in `features` and in `tokens`."""


def observation_space(kind: str, grid: TokenGrid, width: int, *, has_rounds: bool) -> spaces.Box:
    """The space of one environment.

    Raises:
        UsageError: for an unknown kind, or `clip` where there is an error map to see.
    """
    if kind not in KINDS:
        raise UsageError(f"observation {kind!r} is not known; known: {', '.join(KINDS)}")
    extra = len(ROUND_FEATURES) if has_rounds else 0
    if kind == "features":
        shape = (grid.num_tokens * (len(FEATURES) + extra),)
        return spaces.Box(0.0, 1.0, shape, np.float32)
    if kind == "tokens":
        return spaces.Box(-np.inf, np.inf, (grid.num_tokens, width + extra), np.float32)
    if has_rounds:
        raise UsageError(
            "observation 'clip' has no place for the error map of the last round; "
            "use 'features' or 'tokens'"
        )
    return spaces.Box(0, 255, grid.clip_shape, np.uint8)


def clip_features(clips: UInt8[Tensor, "B C F H W"], grid: TokenGrid) -> Float[Tensor, "B N c"]:
    """`FEATURES` of each token, from pixels alone, each in [0, 1].

    Motion energy is the mean absolute difference to the same place one slot earlier (one later,
    for the first slot), contrast the standard deviation, both as x / (x + the clip's mean), so
    that a half is average. Brightness is the mean.
    """
    pixels = unit_pixels(patchify(clips, grid))
    slots = pixels.unflatten(1, (grid.time, grid.tokens_per_slot))
    change = (slots[:, 1:] - slots[:, :-1]).abs().mean(-1)
    energy = torch.cat([change[:, :1], change], 1).flatten(1)
    if grid.time == 1:
        energy = torch.zeros(pixels.shape[:2], device=pixels.device)
    contrast = pixels.std(-1, correction=0)
    return torch.stack([_relative(energy), _relative(contrast), pixels.mean(-1)], dim=-1)


def round_features(is_visible: Tensor, error: Float[Tensor, "B N"]) -> Float[Tensor, "B N c"]:
    """`ROUND_FEATURES`: visible or not, and the last error e as e / (1 + e)."""
    return torch.stack([is_visible.float(), error / (1.0 + error)], dim=-1)


def _relative(values: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    total = values + values.mean(1, keepdim=True)
    return torch.where(total > 0, values / total.clamp(min=1e-12), 0.0)
