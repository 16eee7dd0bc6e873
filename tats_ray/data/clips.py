"""Sources of clips for environments: synthetic ones, or the videos of a list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.manifest import read_list
from tats_ray.data.motion import token_motion
from tats_ray.data.synthetic import CLASSES, make_clip

STRIDE = 2
"""From one frame of a clip to the next, in frames of the video."""


@dataclass(frozen=True, slots=True)
class KnownClip:
    """One clip, and where it truly moves if that is known."""

    pixels: UInt8[Tensor, "C F H W"]
    motion: Float[Tensor, " N"] | None
    """Share of each token's pixels that belong to something that moves."""


@runtime_checkable
class ClipSource(Protocol):
    """Numbered clips: the same number always gives the same clip."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> KnownClip: ...


class SyntheticClips:
    """Clips of `tats_ray.data.synthetic`, painted when first asked for and kept.

    Args:
        split: another name gives other clips.
    """

    def __init__(self, grid: TokenGrid, count: int, *, split: str = "clips", seed: int = 0) -> None:
        if count < 1:
            raise UsageError(f"num_clips must be at least 1, got {count}")
        self.grid, self.count, self.split, self.seed = grid, count, split, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> KnownClip:
        return _paint(self.grid, self.split, self.seed, index)


@lru_cache(maxsize=4096)
def _paint(grid: TokenGrid, split: str, seed: int, index: int) -> KnownClip:
    num_frames = (grid.num_frames - 1) * STRIDE + 1
    label = index % len(CLASSES)
    frames, motion = make_clip(num_frames, grid.image_size, seed, split, index, label)
    pixels = torch.from_numpy(frames[::STRIDE]).permute(3, 0, 1, 2).contiguous()
    return KnownClip(pixels, torch.from_numpy(token_motion(motion[::STRIDE], grid)))


class VideoClips:
    """The middle of each video of a list, centred; decoded again whenever it is asked for.

    Raises:
        UsageError: for what is wrong with the list.
        VideoError: from a read, for a video that cannot be read.
    """

    def __init__(self, grid: TokenGrid, videos: str) -> None:
        self.grid = grid
        self._dataset = ClipDataset(
            entries=read_list(videos),
            num_frames=grid.num_frames,
            image_size=grid.image_size,
            stride=STRIDE,
            augment="center",
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> KnownClip:
        clip = self._dataset[0, index]
        motion = self._dataset.motion(clip.index)
        share = None if motion is None else torch.from_numpy(token_motion(motion, self.grid))
        return KnownClip(clip.pixels, share)
