"""A mask over the frames it belongs to, as an array: a strip of time slots."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from torch import Tensor

from tats_ray.core.arrays import Bool, UInt8
from tats_ray.core.grid import TokenGrid

_DIM = 0.3
_OUTLINE = (255, 214, 10)
_SIDE, _GAP = 160, 4  # least height of a frame, and what lies between two, pixels


def draw_overlay(
    clip: UInt8[Tensor, "C F H W"], visible: Bool[Tensor, " N"], grid: TokenGrid
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The first frame of each slot, left to right: visible tokens bright, outlined, others dim."""
    scale = -(-_SIDE // grid.image_size)
    frames = rearrange(clip[:, :: grid.tubelet], "c t h w -> t h w c").numpy()
    frames = frames.repeat(scale, 1).repeat(scale, 2)
    cell = grid.patch * scale
    shown = visible.reshape(grid.time, grid.side, grid.side).numpy()
    bright = shown.repeat(cell, 1).repeat(cell, 2)[..., None]
    picture = np.where(bright, frames, (frames * _DIM).astype(np.uint8))
    edge = max(1, cell // 16)
    place = np.arange(grid.image_size * scale) % cell
    rim = (place < edge) | (place >= cell - edge)
    picture[bright[..., 0] & (rim[:, None] | rim[None, :])] = _OUTLINE
    padded = np.pad(picture, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
    strip: np.ndarray = rearrange(padded, "t h w c -> h (t w) c")[:, :-_GAP]
    return np.ascontiguousarray(strip)
