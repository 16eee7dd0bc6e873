"""Position codes, the tokenizer, and the block of the transformer."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tats_ray.core.grid import TokenGrid
from tats_ray.models.layers import PatchEmbed, PosEmbed, position_table, take_tokens
from tats_ray.ops.patches import patchify

PAPER = TokenGrid()


def test_flat_table_has_the_values_of_the_method() -> None:
    table = position_table("sincos_1d", PAPER, 768)
    assert table.shape == (1, 1568, 768)
    assert table.dtype == torch.float32
    assert torch.equal(table[0, 0], torch.tensor([0.0, 1.0] * 384))
    assert table[0, 1, :2].tolist() == pytest.approx([0.841471, 0.540302], abs=1e-6)


@pytest.mark.parametrize("width", [6, 384])
def test_flat_table_is_the_sinusoid_over_the_flat_index(width: int) -> None:
    table = position_table("sincos_1d", PAPER, width)
    for n in (0, 1, 2, 195, 196, 1000, 1567):
        for j in (0, 1, 2, 3, width - 2, width - 1):
            angle = n / 10000 ** (2 * (j // 2) / width)
            expected = math.cos(angle) if j % 2 else math.sin(angle)
            assert table[0, n, j].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("width", [16, 64, 128])
def test_three_dimensional_table_gives_each_axis_columns_of_its_own(width: int) -> None:
    grid = TokenGrid(num_frames=8, image_size=20, tubelet=2, patch=4)  # 4 x 5 x 5
    table = position_table("sincos_3d", grid, width)[0].unflatten(0, (4, 5, 5))
    per_axis = width // 3 // 2 * 2
    time, row, column = table.split([width - 2 * per_axis, per_axis, per_axis], dim=-1)
    for part, axis in ((time, 0), (row, 1), (column, 2)):
        along = part.movedim(axis, 0)
        assert torch.equal(along, along[:, :1, :1].expand_as(along))  # constant along the others
        distances = torch.cdist(along[:, 0, 0], along[:, 0, 0])
        assert float((distances + torch.eye(len(along)) * 9).min()) > 0.1  # and tells its own


@pytest.mark.parametrize("kind", ["sincos_1d", "sincos_3d"])
def test_no_two_tokens_share_a_position_code(kind: PosEmbed) -> None:
    table = position_table(kind, TokenGrid(num_frames=8, image_size=64, patch=8), 64)[0]
    distances = torch.cdist(table, table) + torch.eye(len(table))
    assert float(distances.min()) > 0.01


def test_tokenizer_is_the_convolution_of_its_own_weights() -> None:
    grid = TokenGrid(num_frames=4, image_size=12, tubelet=2, patch=4)
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(2, *grid.clip_shape, generator=generator)
    embed = PatchEmbed(10, grid)
    convolved = functional.conv3d(clips, embed.proj.weight, embed.proj.bias, stride=(2, 4, 4))
    tokens = embed(patchify(clips, grid))
    torch.testing.assert_close(tokens, convolved.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    assert tuple(embed.proj.weight.shape) == (10, 3, 2, 4, 4)  # weights of the family fit
    shown = torch.tensor([[5, 0], [17, 3]])
    torch.testing.assert_close(
        embed(take_tokens(patchify(clips, grid), shown)), take_tokens(tokens, shown)
    )


def test_taken_tokens_are_the_rows_asked_for_clip_by_clip() -> None:
    values = torch.arange(2 * 3 * 2.0).reshape(2, 3, 2)
    taken = take_tokens(values, torch.tensor([[2, 0], [1, 1]]))
    assert taken.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
