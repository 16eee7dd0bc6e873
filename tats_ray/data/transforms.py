"""Which frames a clip takes, which box of them, and how that becomes a square of pixels.

All of it is arithmetic on integers and on uint8 pixels. What is random takes a generator, and is a
function of that generator's state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from tats_ray.core.arrays import Bool, UInt8

SCALES = (1.0, 0.875, 0.75, 0.66)
"""Crop sides in shares of the short side [method section 2.3]."""
_CROP_PLACES = (
    *((0, 0), (4, 0), (0, 4), (4, 4)),  # corners
    (2, 2),
    *((0, 2), (4, 2), (2, 0), (2, 4)),  # middles of the edges
    *((1, 1), (3, 1), (1, 3), (3, 3)),  # middles of the quarters
)


def below(limit: int, generator: torch.Generator) -> int:
    """A whole number from 0 to `limit` - 1, each as likely."""
    return int(torch.randint(limit, (1,), generator=generator))


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def dense_start(
    total: int, clip_len: int, stride: int, generator: torch.Generator | None = None
) -> int:
    """First frame of a clip that spans `clip_len` x `stride` frames; the middle one if not random.

    0 where the video is no longer than that [method section 2.2].
    """
    num_starts = total - clip_len * stride + 1
    if num_starts <= 1:
        return 0
    return (num_starts - 1) // 2 if generator is None else below(num_starts, generator)


def sample_dense(total: int, clip_len: int, stride: int, start: int) -> list[int]:
    """Every `stride`-th frame from `start`; at the end of the video the last one is repeated.

    Source: method section 2.2 [AdaMAE, VideoMAE kinetics.py]. The comparison there is strict, so
    a step that would land exactly on the last frame is not taken when frames are counted from 1.
    """
    indices, current = [], start
    for _ in range(clip_len):
        indices.append(current)
        if current + 1 + stride < total:
            current += stride
    return indices


def sample_finetune_dense(
    total: int, clip_len: int, stride: int, generator: torch.Generator | None = None
) -> list[int]:
    """`clip_len` frames spread over a window of `clip_len` x `stride` [method section 2.4].

    The window is random, or in the middle without a generator. A shorter video is taken whole, in
    steps of about `stride`, and its last frame repeated.
    """
    window = clip_len * stride
    if total <= window:
        spread = np.linspace(0, total, total // stride)
        rest = np.full(clip_len - total // stride, total)
        return [int(at) for at in np.clip(np.concatenate([spread, rest]), 0, total - 1)]
    middle = (total + window) // 2
    end = middle if generator is None else window + below(total - window, generator)
    points = np.clip(np.linspace(end - window, end, clip_len), end - window, end - 1)
    return [int(at) for at in points]


def sample_segments(
    total: int, num_segments: int, generator: torch.Generator | None = None
) -> list[int]:
    """One frame from each of `num_segments` equal parts: random, or the middle one.

    Deviation: a video shorter than the number of segments is spread over them, where the
    reference shows its first frame `num_segments` times [method section 2.4].
    """
    if generator is None:
        return segment_view(total, num_segments, view=1)
    length = total // num_segments
    if length == 0:
        return [segment * total // num_segments for segment in range(num_segments)]
    return [segment * length + below(length, generator) for segment in range(num_segments)]


def segment_view(total: int, num_segments: int, view: int) -> list[int]:
    """Test view 0 or 1 of the segment sampler: starts and middles of the parts, interleaved.

    Source: method section 2.6 [SSv2 test]. Every second of the sorted 2 x `num_segments` indices.
    """
    step = total / num_segments
    middles = [int(step / 2 + step * segment) for segment in range(num_segments)]
    starts = [int(step * segment) for segment in range(num_segments)]
    return sorted(starts + middles)[view::2]


def dense_view(total: int, clip_len: int, stride: int, view: int, num_views: int) -> list[int]:
    """Test view `view` of the dense sampler: every `stride`-th frame from an evenly spaced start.

    Source: method section 2.6. A single view is taken from the middle.
    """
    sampled = list(range(0, total, stride))
    sampled += sampled[-1:] * (clip_len - len(sampled))
    room = len(sampled) - clip_len
    start = int(view * room / (num_views - 1)) if num_views > 1 else room // 2
    return sampled[start : start + clip_len]


@dataclass(frozen=True, slots=True)
class CropBox:
    """A part of the picture, pixels, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    is_flipped: bool = False

    def scaled(self, old: tuple[int, int], new: tuple[int, int]) -> CropBox:
        """The same part of a picture of another size; sizes are width and height."""
        if old == new:
            return self
        ends = (self.left + self.width, self.top + self.height)
        left, right = (round(at * new[0] / old[0]) for at in (self.left, ends[0]))
        top, bottom = (round(at * new[1] / old[1]) for at in (self.top, ends[1]))
        left, top = min(left, new[0] - 1), min(top, new[1] - 1)
        width, height = max(right - left, 1), max(bottom - top, 1)
        return CropBox(left, top, width, height, self.is_flipped)


def multi_scale_sizes(short_side: int, size: int) -> list[tuple[int, int]]:
    """The 10 (width, height) of a multi-scale crop: neighbours in `SCALES`, else too distorted.

    A side within 2 px of `size` becomes `size`, which saves resampling, but never longer than the
    picture. Source: method section 2.3 [AdaMAE transforms.py].
    """
    sides = [int(short_side * scale) for scale in SCALES]
    sides = [min(size, short_side) if abs(side - size) < 3 else max(side, 1) for side in sides]
    rows = range(len(sides))
    return [(sides[j], sides[i]) for i in rows for j in rows if abs(i - j) <= 1]


def multi_scale_crop_box(width: int, height: int, size: int, generator: torch.Generator) -> CropBox:
    """One of 10 sizes at one of 13 places, all equally likely [method section 2.3]."""
    sizes = multi_scale_sizes(min(width, height), size)
    crop_width, crop_height = sizes[below(len(sizes), generator)]
    x, y = _CROP_PLACES[below(len(_CROP_PLACES), generator)]
    left, top = x * ((width - crop_width) // 4), y * ((height - crop_height) // 4)
    return CropBox(left, top, crop_width, crop_height)


def random_resized_crop_box(width: int, height: int, generator: torch.Generator) -> CropBox:
    """Area 1/2 to 1, aspect 3/4 to 4/3 (log-uniform), mirrored half the time [ambiguity A14].

    After ten boxes that do not fit, the largest centred one of an allowed aspect.
    """
    is_flipped = below(2, generator) == 1
    for _ in range(10):
        area = width * height * uniform(0.5, 1.0, generator)
        aspect = math.exp(uniform(math.log(3 / 4), math.log(4 / 3), generator))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = below(width - w + 1, generator), below(height - h + 1, generator)
            return CropBox(left, top, w, h, is_flipped)
    w, h = min(width, max(1, height * 4 // 3)), min(height, max(1, width * 4 // 3))
    return CropBox((width - w) // 2, (height - h) // 2, w, h, is_flipped)


def center_crop_box(width: int, height: int) -> CropBox:
    """The centred square of the short side, to be resized afterwards.

    Resizing first and cropping then shows the same up to half a pixel [method section 2.6].
    """
    return view_crop_box(width, height, view=1)


def view_crop_box(width: int, height: int, view: int) -> CropBox:
    """Square 0, 1 or 2 along the longer side: start, middle, end [method section 2.6]."""
    short, offset = min(width, height), int(view * abs(width - height) / 2)
    return CropBox(*((offset, 0) if width > height else (0, offset)), short, short)


def crop_and_resize(
    frames: UInt8[np.ndarray, "F H W C"], box: CropBox, size: int
) -> UInt8[Tensor, "C F side side"]:
    """Cuts `box` out of every frame and resizes it to `size` x `size`, bilinear.

    Shrinking averages over all pixels that fall together, as PIL does and the peers' training
    crop with it (their test crop, cv2, does not); in torch's uint8 kernel that costs nothing, and
    the whole is ten times faster than through float.
    """
    part = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    return resize(part, size, is_flipped=box.is_flipped)


def resize(
    frames: UInt8[np.ndarray, "F H W C"], size: int, *, is_flipped: bool = False
) -> UInt8[Tensor, "C F side side"]:
    """`crop_and_resize` of all that is there."""
    pixels: Tensor = rearrange(torch.from_numpy(frames), "f h w c -> f c h w")
    if pixels.shape[2:] != (size, size):
        # The kernel takes a third longer for a part of a picture than for one in a row.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        pixels = interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    pixels = rearrange(pixels, "f c h w -> c f h w")
    return pixels.flip(-1) if is_flipped else pixels.contiguous()


def resized(
    frame: UInt8[np.ndarray, "h w C"], height: int, width: int
) -> UInt8[Tensor, "C height width"]:
    """A whole frame at another size, as `crop_and_resize` resizes."""
    pixels = rearrange(torch.from_numpy(frame.copy()), "h w c -> 1 c h w")
    if pixels.shape[2:] != (height, width):
        pixels = interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
    return pixels[0]


def crop_mask(
    mask: Bool[np.ndarray, "F H W"], box: CropBox, size: int
) -> Bool[np.ndarray, "F side side"]:
    """`crop_and_resize` for a mask: each pixel is the one of the source under its middle."""
    middle = (np.arange(size) + 0.5) / size
    rows = box.top + (middle * box.height).astype(int)
    columns = box.left + (middle * box.width).astype(int)
    return mask[:, rows[:, None], columns[:: -1 if box.is_flipped else 1]]
