"""Convert clips to tokens of pixels and back, and compute the autoencoder's targets.

Within a token, values are ordered (frame, row, column, colour), colour fastest:
`((frame * patch + row) * patch + column) * 3 + colour` [AdaMAE / VideoMAE engine].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from tats_ray.core.arrays import Float, Shaped, UInt8
from tats_ray.core.grid import TokenGrid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def patchify(clips: Shaped[Tensor, "B C F H W"], grid: TokenGrid) -> Shaped[Tensor, "B N P"]:
    """Cut clips into tokens; keeps the dtype, so uint8 stays a byte per value."""
    return rearrange(
        clips,
        "b c (t p0) (h p1) (w p2) -> b (t h w) (p0 p1 p2 c)",
        p0=grid.tubelet,
        p1=grid.patch,
        p2=grid.patch,
    )


def unpatchify(patches: Shaped[Tensor, "B N P"], grid: TokenGrid) -> Shaped[Tensor, "B C F H W"]:
    """The inverse of `patchify`."""
    return rearrange(
        patches,
        "b (t h w) (p0 p1 p2 c) -> b c (t p0) (h p1) (w p2)",
        t=grid.time,
        h=grid.side,
        p0=grid.tubelet,
        p1=grid.patch,
        p2=grid.patch,
    )


def unit_pixels(patches: Shaped[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Bytes to float32 in [0, 1]; floats are taken to be there already."""
    return patches.float().div_(255.0) if patches.dtype == torch.uint8 else patches.float()


def imagenet_normalize(pixels: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """(pixel - mean) / std per colour, for values in [0, 1] with colour fastest."""
    mean, std = (_beside(pixels, values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels.unflatten(-1, (-1, 3)) - mean).div_(std).flatten(-2)


def _beside(pixels: Float[Tensor, "B N P"], values: tuple[float, ...]) -> Float[Tensor, " c"]:
    """Constants, filled in on the device: a copy from the host would wait for all of its work."""
    return torch.stack([pixels.new_full((), value) for value in values])


class PatchStatistics(NamedTuple):
    """Per patch and colour: mean, and the divisor std + 1e-6. Both are `B N 1 3`."""

    mean: Float[Tensor, "B N 1 3"]
    scale: Float[Tensor, "B N 1 3"]


def patch_statistics(pixels: Float[Tensor, "B N P"]) -> PatchStatistics:
    """Mean and unbiased deviation of each token's pixels, each colour by itself.

    Source: AdaMAE / VideoMAE engine_for_pretraining (image MAE pools the colours instead).
    """
    return _centred(pixels)[1]


def normalized_targets(pixels: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """What the decoder must predict: each patch and colour at mean 0 and deviation 1.

    Args:
        pixels: in [0, 1], float32. Half precision would amplify round-off of flat patches.
    """
    centred, statistics = _centred(pixels)
    return (centred / statistics.scale).flatten(-2)


def byte_targets(
    patches: UInt8[Tensor, "B N P"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B N P"]:
    """`normalized_targets` of bytes, in one pass over them by their first two moments.

    Bytes less 128 are whole numbers whose sums and sums of squares float32 holds exactly, up to
    1,024 pixels of a patch. So nothing cancels, and the result is nearer to the truth.

    Args:
        dtype: of the result.
    """
    shifted = patches.to(dtype).sub_(128.0).unflatten(-1, (-1, 3))
    count = shifted.shape[-2]
    first, second = (
        moment.sum(-2, keepdim=True).double() for moment in (shifted, shifted.square())
    )
    squares = (count * second - first.square()).clamp_min(0.0)  # larger patches round
    slope = 1.0 / ((squares / (count * (count - 1))).sqrt() + 255e-6)
    return shifted.sub_((first / count).to(dtype)).mul_(slope.to(dtype)).flatten(-2)


def _centred(pixels: Float[Tensor, "B N P"]) -> tuple[Float[Tensor, "B N p 3"], PatchStatistics]:
    """Pixels less their patch's mean. Two passes: `torch.var_mean` takes four times as long."""
    colours = pixels.unflatten(-1, (-1, 3))
    mean = colours.mean(-2, keepdim=True)
    centred = colours - mean
    variance = centred.square().sum(-2, keepdim=True) / (colours.shape[-2] - 1)
    return centred, PatchStatistics(mean, variance.sqrt() + 1e-6)


def denormalize(
    prediction: Float[Tensor, "B N P"], statistics: PatchStatistics
) -> Float[Tensor, "B N P"]:
    """Predictions back to pixels in [0, 1], with the statistics of the true patch."""
    colours = prediction.unflatten(-1, (-1, 3))
    return (colours * statistics.scale + statistics.mean).flatten(-2).clamp(0.0, 1.0)
