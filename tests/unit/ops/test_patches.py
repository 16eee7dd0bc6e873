"""Clips to tokens and back; the targets of the autoencoder. References are loops over pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tats_ray.core.grid import TokenGrid
from tats_ray.ops.patches import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PatchStatistics,
    byte_targets,
    denormalize,
    imagenet_normalize,
    normalized_targets,
    patch_statistics,
    patchify,
    unit_pixels,
    unpatchify,
)

SMALL = TokenGrid(num_frames=4, image_size=12, tubelet=2, patch=4)  # 2 x 3 x 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_value_of_every_pixel_is_where_the_formula_says() -> None:
    clip = torch.arange(3 * 4 * 12 * 12).reshape(1, 3, 4, 12, 12)
    tokens = patchify(clip, SMALL)
    assert tokens.shape == (1, 18, 96)
    for c in range(3):
        for frame in range(4):
            for row in range(12):
                for column in range(12):
                    token = (frame // 2 * 3 + row // 4) * 3 + column // 4
                    value = (((frame % 2) * 4 + row % 4) * 4 + column % 4) * 3 + c
                    assert tokens[0, token, value] == clip[0, c, frame, row, column]


@pytest.mark.parametrize(("t", "y", "x"), [(0, 0, 0), (0, 13, 5), (3, 2, 9), (7, 13, 13)])
def test_tubelet_t_y_x_is_token_t_196_plus_y_14_plus_x_and_no_other(t: int, y: int, x: int) -> None:
    clip = torch.zeros(1, 3, 16, 224, 224, dtype=torch.uint8)
    clip[:, :, 2 * t : 2 * t + 2, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 1
    touched = patchify(clip, TokenGrid()).any(-1)[0].nonzero().flatten().tolist()
    assert touched == [t * 196 + y * 14 + x]


@given(
    time=st.integers(1, 3),
    side=st.integers(1, 3),
    tubelet=st.integers(1, 3),
    patch=st.integers(1, 4),
)
def test_unpatchify_undoes_patchify_for_any_grid(
    time: int, side: int, tubelet: int, patch: int
) -> None:
    grid = TokenGrid(
        num_frames=time * tubelet, image_size=side * patch, tubelet=tubelet, patch=patch
    )
    clips = torch.randint(256, (2, *grid.clip_shape), dtype=torch.uint8)
    tokens = patchify(clips, grid)
    assert tokens.shape == (2, grid.num_tokens, grid.values_per_token)
    assert tokens.dtype == torch.uint8
    assert torch.equal(unpatchify(tokens, grid), clips)


def test_bytes_become_0_to_1_and_floats_stay() -> None:
    assert torch.equal(
        unit_pixels(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)),
        torch.tensor([[[0.0, 0.2, 1.0]]]),
    )
    assert torch.equal(unit_pixels(torch.tensor([[[0.25]]])), torch.tensor([[[0.25]]]))


def test_imagenet_normalization_takes_each_colour_by_itself() -> None:
    pixels = torch.tensor([[[0.485, 0.456, 0.406, 0.485 + 0.229, 0.456 - 0.224, 1.0]]])
    expected = torch.tensor([[[0.0, 0.0, 0.0, 1.0, -1.0, (1 - 0.406) / 0.225]]])
    torch.testing.assert_close(imagenet_normalize(pixels), expected)


def test_imagenet_normalization_rounds_as_with_tables_of_its_constants() -> None:
    pixels = noise(2, 5, 12, seed=2)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    by_table = ((pixels.unflatten(-1, (4, 3)) - mean) / std).flatten(-2)
    assert torch.equal(imagenet_normalize(pixels), by_table)


def test_targets_have_mean_0_and_unbiased_deviation_1_per_patch_and_colour() -> None:
    # Colours of quite different level and contrast: pooling them would show at once.
    pixels = noise(2, 5, 64, 3, seed=1) * torch.tensor([0.1, 0.5, 0.9]) + torch.tensor([0.8, 0, 0])
    colours = normalized_targets(pixels.flatten(2)).unflatten(-1, (64, 3)).double()
    mean = colours.sum(2) / 64
    unbiased = ((colours - mean.unsqueeze(2)) ** 2).sum(2) / 63
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(unbiased, torch.ones_like(unbiased), atol=3e-4, rtol=0)


def test_target_of_one_pixel_is_its_distance_from_the_mean_in_deviations() -> None:
    # Four values of one colour: 0, 0, 0, 1. Mean 1/4, unbiased variance (3/16 + 9/16) / 3 = 1/4.
    pixels = torch.zeros(1, 1, 12)
    pixels[0, 0, 9] = 1.0
    red = normalized_targets(pixels)[0, 0, ::3]
    torch.testing.assert_close(red, torch.tensor([-0.5, -0.5, -0.5, 1.5]), atol=1e-5, rtol=0)
    assert not normalized_targets(pixels)[0, 0, 1::3].any()  # a flat colour is 0, not NaN


def test_zero_prediction_has_error_511_over_512_on_textured_patches() -> None:
    targets = normalized_targets(noise(1, 4, 512 * 3))
    torch.testing.assert_close(
        targets.square().mean(-1), torch.full((1, 4), 511 / 512), atol=2e-5, rtol=0
    )


def contrasts() -> Tensor:
    """Patches of 8 x 8 x 2 bytes: noise, almost flat, flat, black, and one bright pixel."""
    generator = torch.Generator().manual_seed(5)
    noisy = torch.randint(256, (1, 1, 128, 3), generator=generator)
    faint = 255 - torch.randint(2, (1, 1, 128, 3), generator=generator)
    spark = torch.zeros(1, 1, 128, 3, dtype=torch.long)
    spark[0, 0, 5, 1] = 255
    flat = torch.full_like(spark, 37)
    patches = torch.cat([noisy, faint, spark, flat, torch.zeros_like(flat)], 1)
    return patches.flatten(2).to(torch.uint8)


def test_targets_by_two_moments_equal_those_in_two_passes() -> None:
    patches = contrasts()
    reference = normalized_targets(patches.double() / 255)
    found = byte_targets(patches, torch.float64)
    # The mean of flat bytes over 255 is rounded, and the divisor 1e-6 shows it.
    torch.testing.assert_close(found[:, :3], reference[:, :3], atol=1e-12, rtol=1e-12)
    single = byte_targets(patches)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single[:, :3].double(), reference[:, :3], atol=1e-6, rtol=1e-6)
    for targets in (found, single):
        assert not targets[0, 3:].any()


@pytest.mark.parametrize("value", [0, 1, 255])
def test_moments_of_patches_too_large_for_exact_sums_are_close(value: int) -> None:
    patches = torch.full((1, 1, 3 * 5000), value, dtype=torch.uint8)
    patches[..., 6] = 128
    reference = normalized_targets(patches.double() / 255)
    found = byte_targets(patches).double()
    torch.testing.assert_close(found[..., ::3], reference[..., ::3], atol=1e-4, rtol=1e-4)
    assert found[..., 1::3].abs().max() < 0.01


def test_denormalize_undoes_normalized_targets() -> None:
    pixels = noise(2, 3, 96)
    back = denormalize(normalized_targets(pixels), patch_statistics(pixels))
    torch.testing.assert_close(back, pixels, atol=1e-6, rtol=0)


def test_denormalized_prediction_stays_in_the_range_of_pixels() -> None:
    statistics = PatchStatistics(torch.full((1, 1, 1, 3), 0.5), torch.full((1, 1, 1, 3), 0.2))
    found = denormalize(torch.tensor([[[-9.0, 1.0, 9.0]]]), statistics)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.7, 1.0]]]))
