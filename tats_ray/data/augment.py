"""What is done to the pixels of a training clip, the same to all of its frames.

torchvision's functions do the work, on all frames at once. What is random takes a generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from tats_ray.core.arrays import UInt8
from tats_ray.data.transforms import CropBox, below, uniform

Operation = Callable[[Tensor, float], Tensor]
_GREY = [128.0, 128.0, 128.0]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _affine(
    frames: Tensor, _: float, *, shift: tuple[float, float] = (0, 0), shear: tuple[float, float]
) -> Tensor:
    return tv.affine(
        frames,
        angle=0.0,
        translate=[float(part) for part in shift],
        scale=1.0,
        shear=[math.degrees(math.atan(part)) for part in shear],
        interpolation=InterpolationMode.BILINEAR,
        fill=_GREY,
        center=[0, 0],
    )


def _rotate(frames: Tensor, strength: float) -> Tensor:
    angle = 30.0 * strength
    return tv.rotate(frames, angle, interpolation=InterpolationMode.BILINEAR, fill=_GREY)


def _shear(frames: Tensor, strength: float, *, axis: Literal[0, 1]) -> Tensor:
    amount = 0.3 * strength
    return _affine(frames, 0.0, shear=(0.0, amount) if axis else (amount, 0.0))


def _shift(frames: Tensor, strength: float, *, axis: Literal[0, 1]) -> Tensor:
    amount = 0.45 * strength * frames.shape[-2 if axis else -1]
    return _affine(frames, 0.0, shift=(0, amount) if axis else (amount, 0), shear=(0.0, 0.0))


def _enhance(frames: Tensor, strength: float, *, how: Callable[..., Tensor]) -> Tensor:
    return how(frames, max(0.1, 1.0 + 0.9 * strength))


def _posterize(frames: Tensor, strength: float) -> Tensor:
    return tv.posterize(frames, 4 - int(4 * abs(strength)))


def _solarize(frames: Tensor, strength: float) -> Tensor:
    threshold = 256 - int(256 * abs(strength))
    return torch.where(frames.int() >= threshold, 255 - frames, frames)


def _solarize_add(frames: Tensor, strength: float) -> Tensor:
    lighter = (frames.int() + int(110 * abs(strength))).clamp(max=255).to(torch.uint8)
    return torch.where(frames < 128, lighter, frames)


OPERATIONS: Mapping[str, Operation] = {
    "auto_contrast": lambda frames, _: tv.autocontrast(frames),
    "equalize": lambda frames, _: tv.equalize(frames),
    "invert": lambda frames, _: tv.invert(frames),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": partial(_enhance, how=tv.adjust_saturation),
    "contrast": partial(_enhance, how=tv.adjust_contrast),
    "brightness": partial(_enhance, how=tv.adjust_brightness),
    "sharpness": partial(_enhance, how=tv.adjust_sharpness),
    "shear_x": partial(_shear, axis=0),
    "shear_y": partial(_shear, axis=1),
    "shift_x": partial(_shift, axis=0),
    "shift_y": partial(_shift, axis=1),
}
"""Each takes frames `F C H W` and a strength in [-1, 1]; the sign is for those that have two ways.
The fifteen that grow with their strength [method section 2.5, timm's "inc1"]."""


def rand_augment(
    frames: UInt8[Tensor, "F C H W"],
    generator: torch.Generator,
    *,
    num_ops: int,
    magnitude: float,
    std: float,
) -> UInt8[Tensor, "F C H W"]:
    """RandAugment: `num_ops` operations drawn with replacement, each left out half of the time.

    Deviation: turned and shifted pictures are resampled bilinearly; timm does it bicubically.

    Args:
        magnitude, std: strengths are drawn from N(magnitude, std), cut to [0, 10].
    """
    names = list(OPERATIONS)
    for _ in range(num_ops):
        name = names[below(len(names), generator)]
        is_left_out = below(2, generator) == 0
        noise = float(torch.randn((), generator=generator))
        sign = 1.0 if below(2, generator) else -1.0
        if not is_left_out:
            strength = min(max(magnitude + std * noise, 0.0), 10.0) / 10.0
            frames = OPERATIONS[name](frames, sign * strength)
    return frames


def area_crop_box(
    width: int, height: int, generator: torch.Generator, *, min_area: float
) -> CropBox:
    """A box of share U(min_area, 1) of the picture, aspect log-uniform in [3/4, 4/3].

    After ten that do not fit, the largest centred one of an allowed aspect. 1 keeps everything.
    Source: method section 2.5.
    """
    if min_area == 1.0:
        return CropBox(0, 0, width, height)
    for _ in range(10):
        area = width * height * uniform(min_area, 1.0, generator)
        aspect = math.exp(uniform(math.log(3 / 4), math.log(4 / 3), generator))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = below(width - w + 1, generator), below(height - h + 1, generator)
            return CropBox(left, top, w, h)
    w, h = min(width, max(1, height * 4 // 3)), min(height, max(1, width * 4 // 3))
    return CropBox((width - w) // 2, (height - h) // 2, w, h)


def erase(
    clip: UInt8[Tensor, "C F H W"], generator: torch.Generator, *, chance: float
) -> UInt8[Tensor, "C F H W"]:
    """Random erasing: one box of noise, in the same place of all frames, fresh in each of them.

    Deviation: N(0, 1) in normalised pixels is cut to what a pixel can be, since clips stay bytes.
    Source: method section 2.5 [timm, mode pixel]: area U(0.02, 1/3), aspect log-uniform in
    [0.3, 1/0.3], ten tries.
    """
    if uniform(0.0, 1.0, generator) >= chance:
        return clip
    _, num_frames, height, width = clip.shape
    for _ in range(10):
        area = height * width * uniform(0.02, 1 / 3, generator)
        aspect = math.exp(uniform(math.log(0.3), math.log(1 / 0.3), generator))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w < width and 0 < h < height:
            top, left = below(height - h + 1, generator), below(width - w + 1, generator)
            noise = torch.randn(3, num_frames, h, w, generator=generator)
            mean, std = (torch.tensor(part).view(3, 1, 1, 1) for part in (_MEAN, _STD))
            pixels = ((noise * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)
            erased = clip.clone()
            erased[:, :, top : top + h, left : left + w] = pixels
            return erased
    return clip
