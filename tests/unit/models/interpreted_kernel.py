"""Runs the Triton kernel of stage 2 on a CPU, in a process of its own: TRITON_INTERPRET=1.

    TRITON_INTERPRET=1 python -m tests.unit.models.interpreted_kernel

Prints, as JSON, by how much output and gradients of trajectory attention with the kernel, and of
the form in torch, differ from those of the form in torch in float64.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

import tats_ray.models.path_kernel  # noqa: F401 - registers the operations
from tats_ray.models import trajectory
from tats_ray.models.kernel_choice import compared
from tats_ray.models.trajectory import TrajectoryAttention

SHAPES = [
    {"width": 12, "heads": 3, "slots": 5, "per_slot": 3, "batch": 2},  # nothing is a power of two
    {"width": 16, "heads": 2, "slots": 4, "per_slot": 2, "batch": 1},
    {"width": 40, "heads": 5, "slots": 1, "per_slot": 7, "batch": 1},
]


def make(width: int, heads: int, slots: int, **options: Any) -> TrajectoryAttention:
    torch.manual_seed(0)
    attention = TrajectoryAttention(width, heads, slots, **options).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # sharp attention, biases that matter
    return attention


def outcome(run: Any, attention: TrajectoryAttention, x: Tensor) -> list[Tensor]:
    """Output, and the gradients of the input and of all parameters, of a projection of it."""
    x = x.clone().requires_grad_()
    out = run(x)
    slopes = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
    found = torch.autograd.grad(out, [x, *attention.parameters()], slopes)
    return [part.detach().double() for part in (out, *found)]


def far(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of each tensor."""
    pairs = zip(found, exact, strict=True)
    return max(float((one - right).abs().max() / right.abs().max()) for one, right in pairs)


def differences(shape: dict[str, int], dtype: torch.dtype, *, recompute: bool) -> dict[str, Any]:
    batch, per_slot = shape["batch"], shape["per_slot"]
    sizes = {name: shape[name] for name in ("width", "heads", "slots")}
    x = torch.randn(batch, shape["slots"] * per_slot, shape["width"], dtype=torch.float64)
    attention = make(**sizes, recompute=recompute)
    exact = outcome(attention, attention, x)
    attention.to(dtype)
    plain = outcome(attention, attention, x.to(dtype))
    attention.is_fused = True
    found = outcome(attention, attention, x.to(dtype))
    where = {"dtype": str(dtype).removeprefix("torch."), "recompute": recompute, **shape}
    return {**where, "fused": far(found, exact), "plain": far(plain, exact)}


def main() -> None:
    torch.set_num_threads(1)
    rows = [
        differences(shape, dtype, recompute=recompute)
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
        for shape in SHAPES
        for recompute in (False, True)
    ]
    trajectory._VALUES_AT_ONCE["cpu"] = 3 * 12 * 7  # 7 of 30 rows
    rows.append(differences(SHAPES[0], torch.float64, recompute=False))
    attention, x = make(12, 3, 5), torch.randn(2, 15, 12, dtype=torch.float64)
    attention.is_fused = True
    exact = outcome(attention, attention, x)
    whole = torch.compile(attention, fullgraph=True, backend="aot_eager")
    traced = far(outcome(whole, attention, x), exact)
    slow = compared(attention.float(), 1, 15, "float32")
    print(json.dumps({"rows": rows, "traced": traced, "slow": slow}))


if __name__ == "__main__":
    main()
