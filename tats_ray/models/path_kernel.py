"""Stage 2 of trajectory attention for GPUs, in Triton: one read of the trajectories each way.

Importing this module registers two operations: `torch.ops.tats_ray.mix` and `unmix`. They compute
what `trajectory.mix` and `trajectory.unmix` do in torch, one token at a time: its whole trajectory
is held in registers while head after head asks it. Sums are in float32 at least.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_VALUES_PER_WARP = 1024
"""Of a trajectory: 32 in each thread, so that two such tiles fit into its registers."""


@triton.jit
def _trajectory(path, token, slot_stride, slots, width, SLOTS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Places and mask of a token's trajectory, padded to powers of two."""
    slot = tl.arange(0, SLOTS).to(tl.int64)
    column = tl.arange(0, WIDTH)
    places = path + slot[:, None] * slot_stride + token * width + column[None, :]
    return places, (slot < slots)[:, None] & (column < width)[None, :]


@triton.jit
def _mix(  # type: ignore[no-untyped-def]
    path, folded, share, mixed, slot_stride, tokens, heads, slots, width,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    slot, column = tl.arange(0, SLOTS), tl.arange(0, WIDTH)
    places, is_inside = _trajectory(path, token, slot_stride, slots, width, SLOTS, WIDTH)
    seen = tl.load(places, is_inside, 0.0).to(WIDE)
    for head in range(heads):
        row = (head * tokens + token) * width + column
        asked = tl.load(folded + row, column < width, 0.0).to(WIDE)
        logits = tl.where(slot < slots, tl.sum(seen * asked[None, :], 1), float("-inf"))
        weight = tl.exp(logits - tl.max(logits, 0))
        weight = weight / tl.sum(weight, 0)
        tl.store(share + (token * heads + head) * slots + slot, weight, slot < slots)
        tl.store(mixed + row, tl.sum(seen * weight[:, None], 0), column < width)


@triton.jit
def _unmix(  # type: ignore[no-untyped-def]
    path, folded, pulls, share, along, mixed, of_folded,
    slot_stride, along_stride, tokens, heads, slots, width,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    slot, column = tl.arange(0, SLOTS), tl.arange(0, WIDTH)
    places, is_inside = _trajectory(path, token, slot_stride, slots, width, SLOTS, WIDTH)
    seen = tl.load(places, is_inside, 0.0).to(WIDE)
    total = tl.zeros((SLOTS, WIDTH), WIDE)
    for head in range(heads):
        row = (head * tokens + token) * width + column
        asked = tl.load(folded + row, column < width, 0.0).to(WIDE)
        pull = tl.load(pulls + row, column < width, 0.0).to(WIDE)
        weight = tl.load(share + (token * heads + head) * slots + slot, slot < slots, 0.0)
        slope = weight * tl.sum(seen * pull[None, :], 1)
        slope = slope - weight * tl.sum(slope, 0)
        total += weight[:, None] * pull[None, :] + slope[:, None] * asked[None, :]
        tl.store(mixed + row, tl.sum(seen * weight[:, None], 0), column < width)
        tl.store(of_folded + row, tl.sum(seen * slope[:, None], 0), column < width)
    targets, _ = _trajectory(along, token, along_stride, slots, width, SLOTS, WIDTH)
    tl.store(targets, total, is_inside)


def _sizes(folded: Tensor, seen: Tensor) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Numbers of tokens, heads, slots and columns, and what a kernel is compiled for."""
    heads, tokens, width = folded.shape
    slots = seen.shape[1]
    padded = triton.next_power_of_2(slots), triton.next_power_of_2(width)
    warps = triton.next_power_of_2(triton.cdiv(padded[0] * padded[1], _VALUES_PER_WARP))
    wide = tl.float64 if seen.dtype == torch.float64 else tl.float32
    fixed = {"SLOTS": padded[0], "WIDTH": padded[1], "WIDE": wide, "num_warps": min(warps, 16)}
    return (tokens, heads, slots, width), {**fixed, "enable_fp_fusion": True}


@torch.library.custom_op(
    "tats_ray::mix", mutates_args=(), schema="(Tensor folded, Tensor seen) -> (Tensor, Tensor)"
)
def mix(folded: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """`trajectory.mix`; of `seen`, rows of a token must be contiguous."""
    share, mixed = _mixed_like(folded, seen)
    sizes, fixed = _sizes(folded, seen)
    _mix[(sizes[0],)](seen, folded.contiguous(), share, mixed, seen.stride(1), *sizes, **fixed)
    return share, mixed


@mix.register_fake
def _mixed_like(folded: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    heads, tokens, _ = folded.shape
    wide = torch.float64 if seen.dtype == torch.float64 else torch.float32
    return folded.new_empty(tokens, heads, seen.shape[1], dtype=wide), folded.new_empty(
        folded.shape
    )


@torch.library.custom_op(
    "tats_ray::unmix",
    mutates_args=("target",),
    schema="(Tensor folded, Tensor pulls, Tensor seen, Tensor share, Tensor(a!) target)"
    " -> (Tensor, Tensor)",
)
def unmix(
    folded: Tensor, pulls: Tensor, seen: Tensor, share: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """`trajectory.unmix`; of `seen` and `target`, rows of a token must be contiguous."""
    mixed, of_folded = _unmixed_like(folded, pulls, seen, share, target)
    sizes, fixed = _sizes(folded, seen)
    given = (seen, folded.contiguous(), pulls.contiguous(), share, target, mixed, of_folded)
    _unmix[(sizes[0],)](*given, seen.stride(1), target.stride(1), *sizes, **fixed)
    return mixed, of_folded


@unmix.register_fake
def _unmixed_like(
    folded: Tensor, pulls: Tensor, seen: Tensor, share: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    return folded.new_empty(folded.shape), folded.new_empty(folded.shape)
