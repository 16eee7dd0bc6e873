"""The clips of an episode, how they are drawn, and the episode's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding
from torch import Tensor

from tats_ray.core.arrays import Bool, Float, Int, UInt8
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.data.clips import ClipSource
from tats_ray.ops.selection import is_visible


@dataclass(slots=True)
class Episode:
    """One clip per row, and what has been shown of it so far."""

    clips: UInt8[Tensor, "B C F H W"]
    """Where the user has them, or wants them."""
    num_tokens: int
    numbers: Sequence[int] | None = None
    """Of the clips in the environment's own source; None where the caller brought them."""
    motion: Float[Tensor, "B N"] | None = None
    """Share of moving pixels per token, where that is known."""
    judged: UInt8[Tensor, "B C F H W"] = field(init=False)
    """The same clips, where the scorer is."""
    visible_idx: Int[Tensor, "B K"] = field(init=False)
    shown: Bool[Tensor, "B N"] = field(init=False)
    error: Float[Tensor, "B N"] = field(init=False)
    """Of the last round."""
    value: Float[Tensor, " B"] | None = None
    """What the selection so far is worth."""

    def __post_init__(self) -> None:
        self.judged = self.clips
        self.visible_idx = torch.empty(len(self.clips), 0, dtype=torch.long)
        self.shown = torch.zeros(len(self.clips), self.num_tokens, dtype=torch.bool)
        self.error = torch.zeros(self.shown.shape)

    def carry(self, device: torch.device | str) -> None:
        """Take the clips to the scorer, once for all rounds."""
        self.judged = self.clips.to(device, non_blocking=True)

    def show(self, chosen: Int[Tensor, "B k"]) -> None:
        self.visible_idx = torch.cat([self.visible_idx.to(chosen.device), chosen], 1)
        self.shown = is_visible(self.visible_idx, self.num_tokens)

    def take_in(self, error: Float[Tensor, "B N"]) -> None:
        """The errors of this round; what has been shown goes where they are."""
        self.error = error
        self.visible_idx = self.visible_idx.to(error.device)
        self.shown = self.shown.to(error.device)

    def gain(self, value: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """What the last round added, so that an episode earns what its whole selection is worth."""
        added = value if self.value is None else value - self.value
        self.value = value
        return added


class ClipDraws:
    """Draws clips from a source, for each row by a random stream of its own."""

    def __init__(self, source: ClipSource | None, grid: TokenGrid, num_envs: int) -> None:
        self.source, self.grid, self.num_envs = source, grid, num_envs
        self.row_random: Sequence[np.random.Generator] = []
        """A row seeded with s draws what one environment seeded with s would."""

    def seed(self, seed: int | Sequence[int | None]) -> list[int | None]:
        """Seed the rows; a single seed is the first row's, and the others count on from it."""
        is_one = isinstance(seed, int | np.integer)
        seeds = [int(seed) + row for row in range(self.num_envs)] if is_one else [*seed]  # type: ignore[arg-type,misc]
        if len(seeds) != self.num_envs:
            raise UsageError(
                f"{counted(len(seeds), 'seed')} for {counted(self.num_envs, 'environment')}"
            )
        self.row_random = [seeding.np_random(one)[0] for one in seeds]
        return seeds

    def draw(self, clip_idx: Any = None) -> Episode:
        """Clips by these numbers, or by numbers that the rows draw.

        Raises:
            UsageError: without a source, and for numbers that it does not have.
        """
        if self.source is None:
            raise UsageError('reset needs options={"clips": uint8 tensor of shape (B C F H W)}')
        count = len(self.source)
        if clip_idx is None:
            clip_idx = [random.integers(count) for random in self.row_random]
        numbers = [int(index) for index in clip_idx]
        if len(numbers) != self.num_envs or not all(0 <= number < count for number in numbers):
            raise UsageError(
                f"clip_idx must hold {self.num_envs} numbers in [0, {count}), got {numbers}"
            )
        known = [self.source[number] for number in numbers]
        motion = [clip.motion for clip in known if clip.motion is not None]
        return Episode(
            torch.stack([clip.pixels for clip in known]),
            self.grid.num_tokens,
            numbers,
            torch.stack(motion) if len(motion) == len(known) else None,
        )

    def take(self, clips: Any, motion: Any = None) -> Episode:
        """Clips that the caller brings.

        Raises:
            UsageError: for clips of another number, shape or type.
        """
        clips = torch.as_tensor(clips)
        expected = (self.num_envs, *self.grid.clip_shape)
        if tuple(clips.shape) != expected or clips.dtype != torch.uint8:
            raise UsageError(
                f"clips are {clips.dtype} {tuple(clips.shape)}, expected torch.uint8 {expected}"
            )
        if motion is not None:
            motion = torch.as_tensor(motion)
            if tuple(motion.shape) != (self.num_envs, self.grid.num_tokens):
                raise UsageError(
                    f"token_motion has shape {tuple(motion.shape)}, expected "
                    f"({self.num_envs}, {self.grid.num_tokens})"
                )
        return Episode(clips, self.grid.num_tokens, None, motion)
