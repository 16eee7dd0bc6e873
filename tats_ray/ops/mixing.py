"""Mixup and CutMix: a batch is mixed with itself in reverse order [method section 2.5].

Deviation: timm's CutMix cuts the two axes after the colours, which on clips are time and height;
here it cuts height and width of all frames, as VideoMAE's copy does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tats_ray.core.arrays import Float, Int, UInt8

CutAxes = Literal["picture", "time_height"]


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch is mixed with its reverse."""

    share: float = 1.0
    """Of a clip's own pixels, and of its own label."""
    box: tuple[int, int, int, int] | None = None
    """Top, bottom, left, right of what CutMix takes from the other clip; None mixes everywhere."""


def draw_mix(
    generator: np.random.Generator,
    *,
    size: int,
    mixup: float,
    cutmix: float,
    switch: float = 0.5,
    mix: float = 1.0,
) -> Mix:
    """One mix for a batch, as timm draws it in its batch mode.

    Args:
        size: height and width of a clip, pixels.
        mixup, cutmix: parameter of the beta distribution that the share is drawn from; 0 for none.
        switch: chance of CutMix where both are on.
        mix: chance that the batch is mixed at all.
    """
    if not (mixup or cutmix) or generator.random() >= mix:
        return Mix()
    is_cut = bool(cutmix) and (not mixup or generator.random() < switch)
    alpha = cutmix if is_cut else mixup
    share = float(generator.beta(alpha, alpha))
    if not is_cut:
        return Mix(share)
    side = int(size * math.sqrt(1.0 - share))
    middle_y, middle_x = generator.integers(size, size=2).tolist()
    top, left = max(middle_y - side // 2, 0), max(middle_x - side // 2, 0)
    bottom, right = min(middle_y + (side + 1) // 2, size), min(middle_x + (side + 1) // 2, size)
    # The box may stick out: what counts is what was really cut.
    return Mix(1.0 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right))


def cut_in(
    clips: UInt8[Tensor, "B C F H W"], mix: Mix, axes: CutAxes = "picture"
) -> UInt8[Tensor, "B C F H W"]:
    """CutMix's part: the box of the reversed batch, in every frame.

    Args:
        axes: time_height is timm's slip, for comparisons: the box cuts time and height, and the
            share that the labels get is still the one of the picture.
    """
    if mix.box is None:
        return clips
    top, bottom, left, right = mix.box
    mixed = clips.clone()
    if axes == "time_height":
        mixed[:, :, top:bottom, left:right] = clips.flip(0)[:, :, top:bottom, left:right]
        return mixed
    mixed[..., top:bottom, left:right] = clips.flip(0)[..., top:bottom, left:right]
    return mixed


def blend(values: Float[Tensor, "B N P"], mix: Mix) -> Float[Tensor, "B N P"]:
    """Mixup's part: everything of both. Normalisation is linear, so it may come before."""
    if mix.box is not None or mix.share == 1.0:
        return values
    return values.mul(mix.share).add_(values.flip(0), alpha=1.0 - mix.share)


def soft_targets(
    labels: Int[Tensor, " B"], num_classes: int, *, share: float = 1.0, smoothing: float = 0.0
) -> Float[Tensor, "B C"]:
    """What each clip should be taken for; rows sum to one."""
    own = one_hot(labels, num_classes).float() * (1.0 - smoothing) + smoothing / num_classes
    return own if share == 1.0 else torch.lerp(own.flip(0), own, share)
