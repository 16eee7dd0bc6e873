"""Cache of what is known of a clip before any of it is shown, by the clip's number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tats_ray.core.arrays import Float, Int, UInt8
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import Scorer
from tats_ray.core.seeds import stream

_NUM_MASKS = 4
Compute = Callable[[Tensor, Sequence[int]], Tensor]
"""(clips, a number for each) -> one row per clip."""


class Remembered:
    """A function of clips that is computed once per numbered clip.

    Args:
        is_lasting: whether what was computed stays true.
    """

    def __init__(self, compute: Compute, *, is_lasting: bool = True) -> None:
        self._compute = compute
        self._is_lasting = is_lasting
        self._rows: dict[int, Tensor] = {}

    def __call__(
        self, clips: UInt8[Tensor, "B C F H W"], numbers: Sequence[int] | None
    ) -> Float[Tensor, "B ..."]:
        """A row per clip; clips without numbers are computed afresh."""
        if numbers is None or not self._is_lasting:
            return self._compute(clips, numbers or range(len(clips)))
        new = {number: row for row, number in enumerate(numbers) if number not in self._rows}
        if new:
            found = self._compute(clips[list(new.values())], list(new))
            self._rows.update(zip(new, found, strict=True))
        return torch.stack([self._rows[number] for number in numbers])


def random_error(
    scorer: Scorer, grid: TokenGrid, num_visible: int, clips: Tensor, numbers: Sequence[int]
) -> Float[Tensor, " B"]:
    """Mean error over hidden tokens under four random masks, which the clip's number decides."""
    masks = torch.stack([_masks(grid.num_tokens, num_visible, number) for number in numbers])
    errors = [scorer.score(clips, mask).sum(1) for mask in masks.unbind(1)]
    mean = torch.stack(errors).mean(0) / (grid.num_tokens - num_visible)
    return mean.to(clips.device)  # remembered where the clips are


def _masks(num_tokens: int, num_visible: int, number: int) -> Int[Tensor, "r K"]:
    noise = torch.rand(_NUM_MASKS, num_tokens, generator=stream(0, "probe", number))
    return noise.argsort(1)[:, :num_visible]
