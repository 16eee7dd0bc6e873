"""`tats select`: the frames of a video, and the regions in them, that a learned sampler keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tats_ray.config.schema import RunConfig
from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.words import counted
from tats_ray.data.decode import timed_frames
from tats_ray.data.transforms import resized
from tats_ray.evaluation.selecting.coverage import (
    ROUNDING,
    Lattice,
    Merged,
    apart,
    connected,
    most_probable,
)
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import SamplerPolicy, is_learned
from tats_ray.models.zoo import num_visible


@runtime_checkable
class Networks(Protocol):
    """What is needed of a loaded checkpoint."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def grid(self) -> TokenGrid: ...
    @property
    def mae(self) -> MaskedAutoencoder: ...
    @property
    def policy(self) -> MaskPolicy: ...
    @property
    def origin(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Region:
    """Kept tokens of a frame that touch each other."""

    box: list[int]
    """Left, top, right and bottom of the rectangle around them, pixels of the upright video."""
    probability: float
    """That a token drawn from the whole video is one of them."""
    times_uniform: float
    """Mean over them, in multiples of the uniform probability."""


@dataclass(frozen=True, slots=True)
class TellingFrame:
    """One of the selected frames."""

    rank: int
    """1 for the most telling."""
    frame: int
    """Number in the video, from 0: the first of its time slot."""
    time_s: float
    """Seconds from the first frame."""
    probability: float
    """That a token drawn from the whole video lies in one of its regions."""
    regions: list[Region]
    """Most probable first; empty where nothing of the frame is kept."""


@dataclass(frozen=True, slots=True)
class VideoSelection:
    """What a sampler would keep of a video."""

    video: str
    origin: str
    """The network, in words."""
    width: int
    """Pixels of the upright video."""
    height: int
    num_frames: int
    frames_per_slot: int
    kept_share: float
    """Of all tokens of the video."""
    frames: list[TellingFrame]
    """In the order of time."""
    heat: Float[np.ndarray, "T rows columns"] = field(repr=False)
    """Probability of each token, in multiples of uniform."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """The whole video, as the network saw it."""

    lattice: Lattice
    heat: Float[np.ndarray, "T rows columns"]
    times_s: list[float]
    """Of the first frame of each time slot."""
    num_frames: int


def select_frames(
    found: Networks, video: str | Path, k: int, *, mask_ratio: float | None = None
) -> VideoSelection:
    """Choose the `k` most telling frames of a video and the regions in them.

    Of all tokens of the video the most probable ones are kept, as many as the mask ratio leaves
    visible, unless chance is as likely to show them. A frame counts by what its kept tokens have
    above chance: a still scene, where all is equally likely, counts nothing. No two frames are
    closer than half of an even spacing. `selecting.coverage` says how windows are merged.

    Args:
        found: networks with a learned sampler.
        video: a video file, or a folder of numbered pictures.
        mask_ratio: share of tokens to hide, inside (0, 1); default: the sampler's own.

    Raises:
        UsageError: where no sampler has learned, or `k` is below 1 or above the number of time
            slots, or the video is shorter than a clip.
        VideoError: for a video that cannot be read.
    """
    if not is_learned(found.policy):
        raise UsageError(
            f"{found.origin}: nothing in it has learned which tokens to show (sampler "
            f"{found.config.sampler.name}); use a run with a learned one, or leave out --run"
        )
    if k < 1:
        raise UsageError(f"-k {k} asks for no frame; use 1 or more")
    grid = found.grid
    share = num_visible(found.config.sampler, grid, mask_ratio) / grid.num_tokens
    scan = _scan(found, found.policy, str(video))
    if k > len(scan.heat):
        raise UsageError(
            f"-k {k} asks for more frames than the {counted(len(scan.heat), 'time slot')} of "
            f"{video}; use {len(scan.heat)} or fewer"
        )
    probability = scan.heat / scan.heat.sum()
    kept = most_probable(scan.heat, share)
    ranked = apart(((scan.heat - 1) * kept).sum((1, 2)), k)
    per_slot = grid.tubelet * found.config.data.stride
    frames = [
        TellingFrame(
            rank,
            slot * per_slot,
            scan.times_s[slot],
            float(probability[slot][kept[slot]].sum()),
            _regions(scan, probability, kept, slot),
        )
        for rank, slot in enumerate(ranked, start=1)
    ]
    return VideoSelection(
        str(video),
        found.origin,
        scan.lattice.width,
        scan.lattice.height,
        scan.num_frames,
        per_slot,
        share,
        sorted(frames, key=lambda frame: frame.time_s),
        scan.heat,
    )


@torch.no_grad()
def _scan(found: Networks, policy: SamplerPolicy, video: str) -> _Scan:
    grid, film = found.grid, _Film(video, found.grid, found.config.data.stride)
    merged: Merged | None = None
    for start, pixels in _windows(film.frames(), grid):
        merged = merged or Merged(film.lattice)
        corners = film.lattice.corners()
        clips = torch.stack([_cut(pixels, grid, *corner) for corner in corners])
        tokens = found.mae.embed(clips.to(found.mae.mask_token.device))
        times_uniform = policy.evaluate(tokens).log_prob.exp().cpu() * grid.num_tokens
        for corner, heat in zip(corners, times_uniform, strict=True):
            merged.add(start, corner, heat.reshape(grid.time, grid.side, grid.side).numpy())
    if merged is None:
        span = grid.num_frames * film.stride
        raise UsageError(
            f"{video} has {counted(film.num_frames, 'frame')}, and a clip of {found.origin} spans "
            f"{span}; use a longer video"
        )
    heat = merged.heat()
    if np.ptp(heat) < ROUNDING:
        raise UsageError(
            f"{found.origin}: its sampler finds all of {video} equally likely, as one does that "
            "has not learned yet; use a later checkpoint"
        )
    return _Scan(film.lattice, heat, film.times_s, film.num_frames)


class _Film:
    """A video as the network sees it, and what was learned of it on the way."""

    lattice: Lattice

    def __init__(self, video: str, grid: TokenGrid, stride: int) -> None:
        self._video, self._grid, self.stride = video, grid, stride
        self.num_frames = 0
        self.times_s: list[float] = []
        """Of the first frame of each time slot."""

    def frames(self) -> Iterator[UInt8[Tensor, "C H W"]]:
        """Every `stride`-th frame, resized."""
        for index, (time_s, frame) in enumerate(timed_frames(self._video)):
            height, width = frame.shape[:2]
            if index == 0:
                self.lattice = Lattice(self._grid, width, height)
            if (self.lattice.width, self.lattice.height) != (width, height):
                was = f"{self.lattice.width}x{self.lattice.height}"
                raise VideoError(
                    self._video, f"changes its picture size from {was} to {width}x{height}"
                )
            self.num_frames = index + 1
            if index % (self._grid.tubelet * self.stride) == 0:
                self.times_s.append(time_s)
            if index % self.stride == 0:
                yield resized(frame, *self.lattice.size)


def _windows(
    frames: Iterator[UInt8[Tensor, "C H W"]], grid: TokenGrid
) -> Iterator[tuple[int, UInt8[Tensor, "C F H W"]]]:
    """First time slot and pixels of clips that overlap by half; the last one ends with the video.

    A last time slot that lacks frames repeats the last one. Nothing comes of a shorter video.
    """
    hop = max(1, grid.time // 2) * grid.tubelet
    recent: deque[Tensor] = deque(maxlen=grid.num_frames)
    count, due = 0, grid.num_frames

    def window() -> tuple[int, Tensor]:
        return (count - grid.num_frames) // grid.tubelet, torch.stack(list(recent), 1)

    for frame in frames:
        recent.append(frame)
        count += 1
        if count == due:
            yield window()
            due += hop
    for _ in range(-count % grid.tubelet):
        recent.append(recent[-1])
        count += 1
    if count >= grid.num_frames and count > due - hop:
        yield window()


def _cut(
    pixels: UInt8[Tensor, "C F H W"], grid: TokenGrid, row: int, column: int
) -> UInt8[Tensor, "C F side side"]:
    """The square window whose first token is at this place."""
    top, left, side = row * grid.patch, column * grid.patch, grid.image_size
    return pixels[:, :, top : top + side, left : left + side]


def _regions(scan: _Scan, probability: np.ndarray, kept: np.ndarray, slot: int) -> list[Region]:
    found = []
    for group in connected(kept[slot]):
        rows, columns = zip(*group, strict=True)
        found.append(
            Region(
                scan.lattice.box(min(rows), min(columns), max(rows), max(columns)),
                float(probability[slot][rows, columns].sum()),
                float(scan.heat[slot][rows, columns].mean()),
            )
        )
    return sorted(found, key=lambda region: -region.probability)
