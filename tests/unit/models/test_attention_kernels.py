"""Which attention kernel is used when, and that all of them compute the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.beit import Block as BeitBlock
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tats_ray.models.layers import attend, transformer_block, written_out


def parts(
    queries: int, keys: int, dtype: torch.dtype = torch.float64, heads: int = 4
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, queries, 8), (2, heads, keys, 8), (2, heads, keys, 8)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [rows.to(dtype).requires_grad_() for rows in drawn]


def outcome(form: Any, given: list[Tensor]) -> list[Tensor]:
    out = form(*given)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), given)]


def test_written_out_attention_equals_the_kernel_in_both_directions() -> None:
    given = parts(13, 9)
    expected = outcome(functional.scaled_dot_product_attention, given)
    for found, right in zip(outcome(written_out, given), expected, strict=True):
        torch.testing.assert_close(found, right, atol=1e-12, rtol=1e-12)


def test_both_forms_are_as_near_to_the_truth_in_bfloat16() -> None:
    exact = outcome(written_out, parts(78, 78))
    rough = parts(78, 78, torch.bfloat16)
    for form in (written_out, functional.scaled_dot_product_attention):
        for found, right in zip(outcome(form, rough), exact, strict=True):
            torch.testing.assert_close(found.double(), right, atol=0.03, rtol=0.03)


class Kernels(TorchDispatchMode):
    """Notes whether the kernel for CPUs ran."""

    flash = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.flash |= "flash_attention" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "keys", "heads", "learns", "is_kernel"),
    [
        (torch.bfloat16, 78, 4, True, False),
        (torch.bfloat16, 401, 4, True, True),
        (torch.bfloat16, 400, 40, True, True),  # more scores than a cache holds
        (torch.bfloat16, 78, 4, False, True),
        (torch.float32, 78, 4, True, True),
    ],
)
def test_kernel_depends_on_type_size_and_whether_something_learns(
    dtype: torch.dtype, keys: int, heads: int, learns: bool, is_kernel: bool
) -> None:
    with Kernels() as kernels, torch.set_grad_enabled(learns):
        attend(*parts(keys, keys, dtype, heads))
    assert kernels.flash == is_kernel


def test_block_equals_the_one_that_it_replaces_bit_for_bit() -> None:
    torch.manual_seed(0)
    block = transformer_block(16, 2)
    x = torch.randn(3, 7, 16, requires_grad=True)
    found = outcome(block.forward, [x])
    expected = outcome(lambda rows: BeitBlock.forward(block, rows), [x])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
