"""Mask rules that do not learn: uniformly random tokens, tubes, frames, blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tats_ray.config.schema import SamplerConfig
from tats_ray.core.arrays import Int
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskRule
from tats_ray.models.policy import FixedPolicy, random_mask
from tats_ray.models.samplers.registry import Sampler
from tats_ray.ops.selection import draw_visible

_NUM_BLOCKS = 64
_BLOCK_SHARE = 0.15
_BLOCK_ASPECTS = (0.75, 1.5)


def tube_mask(
    grid: TokenGrid, num_clips: int, num_visible: int, generator: torch.Generator
) -> Int[Tensor, "B K"]:
    """The same columns in every time slot [VideoMAE; method section 5]."""
    slots, per_slot = grid.time, grid.tokens_per_slot
    if num_visible % slots:
        raise ValueError(f"a tube mask over {slots} time slots cannot show {num_visible}")
    uniform = torch.zeros(num_clips, per_slot, device=generator.device)
    column = draw_visible(uniform, num_visible // slots, generator=generator)
    offset = torch.arange(slots, device=column.device) * per_slot
    return (offset[None, :, None] + column[:, None, :]).flatten(1)


def frame_mask(
    grid: TokenGrid, num_clips: int, num_visible: int, generator: torch.Generator
) -> Int[Tensor, "B K"]:
    """Whole time slots [method section 5]."""
    per_slot = grid.tokens_per_slot
    if num_visible % per_slot:
        raise ValueError(f"a frame mask of {per_slot} tokens a slot cannot show {num_visible}")
    uniform = torch.zeros(num_clips, grid.time, device=generator.device)
    slot = draw_visible(uniform, num_visible // per_slot, generator=generator)
    offset = torch.arange(per_slot, device=slot.device)
    return (slot[:, :, None] * per_slot + offset).flatten(1)


def multi_block_mask(
    grid: TokenGrid, num_clips: int, num_visible: int, generator: torch.Generator
) -> Int[Tensor, "B K"]:
    """Hidden is a union of random blocks of the picture, over all time [Bardes et al. 2024].

    Blocks of 15 % of the picture, aspect 3/4 to 3/2, are laid one upon the other until enough is
    hidden. Of the last of them, whole columns stay visible, and part of one column, so that
    exactly `num_visible` tokens do.
    """
    device, side = generator.device, grid.side

    def uniform(*shape: int) -> Tensor:
        return torch.rand(num_clips, *shape, generator=generator, device=device)

    low, high = _BLOCK_ASPECTS
    aspect = low * (high / low) ** uniform(_NUM_BLOCKS)
    area = _BLOCK_SHARE * side**2
    sizes = [(area * aspect).sqrt(), (area / aspect).sqrt()]
    place = torch.arange(side, device=device)
    inside = []
    for size in sizes:  # rows, then columns
        length = size.round().clamp(1, side)
        first = (uniform(_NUM_BLOCKS) * (side - length + 1)).floor()
        inside.append((place >= first[..., None]) & (place < (first + length)[..., None]))
    covered = inside[0][..., :, None] & inside[1][..., None, :]
    covered = torch.cat([covered, torch.ones_like(covered[:, :1])], 1).flatten(2)
    # Columns in the order of the first block that covers them, at random within one block.
    number = covered.int().argmax(1)
    order = (number + uniform(side**2)).argsort(1).argsort(1)
    when = order[:, None, :] + uniform(grid.time, side**2)
    return when.flatten(1).argsort(1)[:, grid.num_tokens - num_visible :]


def _by(rule: MaskRule) -> Callable[[SamplerConfig, TokenGrid, int, int], FixedPolicy]:
    return lambda config, grid, width, num_heads: FixedPolicy(grid, rule)


RANDOM = Sampler(shows="any tokens, all equally likely", build=_by(random_mask))
TUBE = Sampler(
    shows="the same columns in every time slot",
    num_visible=lambda ratio, grid: grid.num_visible_tube(ratio),
    build=_by(tube_mask),
)
FRAME = Sampler(
    shows="whole time slots; the plan shows the resulting mask ratio",
    num_visible=lambda ratio, grid: grid.num_visible_frame(ratio),
    build=_by(frame_mask),
)
MULTI_BLOCK = Sampler(
    shows="the tokens outside several blocks, which extend over all time",
    build=_by(multi_block_mask),
)
