"""Which form of stage 2 of trajectory attention a GPU takes: the faster, measured at the start."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib import import_module

import torch
from torch import nn

from tats_ray.core.devices import Precision, autocast, now
from tats_ray.models.trajectory import TrajectoryAttention

_LEARNS_ON = "cuda"
_ROUNDS = 5
_GAIN = 0.98
"""Of torch's time: what takes more is not called faster."""


def use_faster_form(
    policy: nn.Module,
    num_clips: int,
    num_tokens: int,
    precision: Precision,
    tell: Callable[[str], None],
) -> None:
    """Have a policy that learns on a GPU take the Triton kernel of stage 2 where it is faster.

    Args:
        num_clips, num_tokens: of one optimiser step.
        tell: takes one line: the two times, or why there is no kernel.
    """
    blocks = [m for m in policy.modules() if isinstance(m, TrajectoryAttention)]
    asked = [block for block in blocks if block.project_values]
    if not asked or asked[0].proj.weight.device.type != _LEARNS_ON:
        return
    is_faster, why = compared(asked[0], num_clips, num_tokens, precision)
    for block in asked:
        block.is_fused = is_faster
    tell(f"stage 2 of trajectory attention {why}")


def compared(
    attention: TrajectoryAttention, num_clips: int, num_tokens: int, precision: Precision
) -> tuple[bool, str]:
    """Whether the kernel is faster than torch on these shapes, and that in words."""
    try:
        fused, plain = form_ms(attention, num_clips, num_tokens, precision)
    # A compiler may fail in any way. What fails for another reason fails again in the run.
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        return False, f"stays in torch, without its Triton kernel: {type(error).__name__}: {first}"
    times = f"{fused:.3g} ms with its Triton kernel, {plain:.3g} ms in torch"
    is_faster = fused < _GAIN * plain
    return is_faster, f"{'uses the kernel' if is_faster else 'stays in torch'}: {times}"


def form_ms(
    attention: TrajectoryAttention, num_clips: int, num_tokens: int, precision: Precision
) -> tuple[float, float]:
    """Milliseconds of trajectory attention both ways, with the kernel and in torch, by turns.

    Raises:
        Exception: of any kind, where Triton is missing or cannot compile for this device.
    """
    import_module("tats_ray.models.path_kernel")
    before, weight = attention.is_fused, attention.proj.weight
    tokens = torch.ones(num_clips, num_tokens, len(weight), device=weight.device)
    tokens.requires_grad_()

    def ms(is_fused: bool) -> float:
        attention.is_fused = is_fused
        begin = now(weight.device)
        with torch.enable_grad(), autocast(weight.device, precision):
            out = attention(tokens)
        torch.autograd.grad(out, [tokens, *attention.parameters()], torch.ones_like(out))
        return 1e3 * (now(weight.device) - begin)

    try:
        rounds = [(ms(True), ms(False)) for _ in range(1 + _ROUNDS)][1:]
    finally:
        attention.is_fused = before
    fused, plain = (statistics.median(times) for times in zip(*rounds, strict=True))
    return fused, plain
