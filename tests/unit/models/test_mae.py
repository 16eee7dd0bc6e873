"""The masked autoencoder against one written out here: embed all, gather, blocks, concatenate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Reconstruction
from tats_ray.models.mae import MaskedAutoencoder

GRID = TokenGrid(num_frames=4, image_size=12, tubelet=2, patch=4)  # 2 x 3 x 3 = 18 tokens
NUM_VISIBLE = 5


def make(head_init: Any = "xavier") -> MaskedAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mae = MaskedAutoencoder(
            GRID,
            width=12,
            depth=2,
            num_heads=2,
            decoder_width=8,
            decoder_depth=2,
            decoder_num_heads=2,
            head_init=head_init,
        )
        for name, parameter in mae.named_parameters():
            if name.endswith("bias") or "norm" in name:  # no bias may hide behind its zero
                nn.init.normal_(parameter, std=0.3)
    if head_init == "zero":
        nn.init.zeros_(mae.decoder.head.bias)
    return mae


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (3, *GRID.clip_shape), generator=generator, dtype=torch.uint8)
    draws = [torch.randperm(18, generator=generator)[:NUM_VISIBLE] for _ in range(3)]
    return clips, torch.stack(draws)


def sinusoid(n: int, width: int) -> Tensor:
    angles = [n / 10000 ** (2 * (j // 2) / width) for j in range(width)]
    return torch.tensor([math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(angles)])


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + (
        layer.bias
    )


def block(layer: Any, x: Tensor) -> Tensor:
    """Pre-norm attention (query and value bias only) and MLP on the tokens (n D) of one clip."""
    heads, width = layer.attn.num_heads, x.shape[-1]
    query, key, value = (norm(layer.norm1, x) @ layer.attn.qkv.weight.T).split(width, -1)
    query, value = query + layer.attn.q_bias, value + layer.attn.v_bias
    out = []
    for q, k, v in zip(*(part.chunk(heads, -1) for part in (query, key, value)), strict=True):
        out.append((q @ k.T / math.sqrt(width / heads)).softmax(-1) @ v)
    x = x + layer.attn.proj(torch.cat(out, -1))
    hidden = layer.mlp.fc1(norm(layer.norm2, x))
    return x + layer.mlp.fc2(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))


def predict_naively(mae: MaskedAutoencoder, clip: Tensor, visible: list[int]) -> dict[int, Tensor]:
    """Prediction for each hidden token of one clip, by its index; hidden ones taken backwards."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (clip / 255 - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    conv = mae.encoder.patch_embed.proj
    tokens = functional.conv3d(pixels[None], conv.weight, conv.bias, stride=(2, 4, 4))
    tokens = tokens[0].flatten(1).T
    x = torch.stack([tokens[n] + sinusoid(n, 12) for n in visible])
    for layer in mae.encoder.blocks:
        x = block(layer, x)
    x = norm(mae.encoder.norm, x) @ mae.encoder_to_decoder.weight.T
    hidden = sorted(set(range(18)) - set(visible), reverse=True)
    shown = [row + sinusoid(n, 8) for row, n in zip(x, visible, strict=True)]
    x = torch.stack([*shown, *[mae.mask_token[0, 0] + sinusoid(n, 8) for n in hidden]])
    for layer in mae.decoder.blocks:
        x = block(layer, x)
    predictions = mae.decoder.head(norm(mae.decoder.norm, x[len(visible) :]))
    return dict(zip(hidden, predictions, strict=True))


def target(clip: Tensor, n: int) -> Tensor:
    """Normalised pixels of token n, by slicing."""
    t, y, x = n // 9, n // 3 % 3, n % 3
    patch = clip[:, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten(1) / 255
    centred = patch - patch.mean(1, keepdim=True)
    deviation = (centred.square().sum(1, keepdim=True) / 31).sqrt()
    return (centred / (deviation + 1e-6)).T.flatten()  # colour fastest


@pytest.fixture(scope="module")
def found() -> Reconstruction:
    with torch.no_grad():
        return make()(*batch())


@pytest.fixture(scope="module")
def naive() -> list[dict[int, Tensor]]:
    mae, (clips, visible) = make(), batch()
    with torch.no_grad():
        return [
            predict_naively(mae, clip, row)
            for clip, row in zip(clips, visible.tolist(), strict=True)
        ]


def test_forward_equals_the_one_written_out_here(
    found: Reconstruction, naive: list[dict[int, Tensor]]
) -> None:
    for clip in range(3):
        assert found.hidden_idx[clip].tolist() == sorted(naive[clip])
        for row, n in enumerate(found.hidden_idx[clip].tolist()):
            torch.testing.assert_close(
                found.prediction[clip, row], naive[clip][n], atol=2e-5, rtol=1e-4
            )


def test_decoder_rows_belong_to_the_hidden_tokens_ascending_and_to_no_other_order(
    found: Reconstruction, naive: list[dict[int, Tensor]]
) -> None:
    expected = torch.stack([torch.stack([rows[n] for n in sorted(rows)]) for rows in naive])
    right = float((found.prediction - expected).abs().max())
    for order in ([1, 0, *range(2, 13)], list(range(12, -1, -1)), [*range(1, 13), 0]):
        assert float((found.prediction - expected[:, order]).abs().max()) > 100 * right


def test_error_is_the_mean_square_against_the_own_patch_and_0_where_visible(
    found: Reconstruction, naive: list[dict[int, Tensor]]
) -> None:
    clips, visible = batch()
    for clip in range(3):
        assert not found.error[clip, visible[clip]].any()
        for n, prediction in naive[clip].items():
            expected = (prediction - target(clips[clip], n)).square().mean()
            torch.testing.assert_close(found.error[clip, n], expected, atol=1e-4, rtol=1e-4)
    own = [found.error[c, n] for c in range(3) for n in naive[c]]
    torch.testing.assert_close(found.loss, torch.stack(own).mean())


def test_targets_that_are_not_normalized_are_the_pixels_from_0_to_1(
    found: Reconstruction,
) -> None:
    clips, visible = batch()
    mae = make()
    mae.normalize_targets = False
    plain = mae(clips, visible)
    assert torch.equal(plain.prediction, found.prediction)
    for row, n in enumerate(found.hidden_idx[2].tolist()):
        t, y, x = n // 9, n // 3 % 3, n % 3
        patch = clips[2, :, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        pixels = patch.flatten(1).T.flatten() / 255
        expected = (plain.prediction[2, row] - pixels).square().mean()
        torch.testing.assert_close(plain.error[2, n], expected)


def test_order_in_which_visible_tokens_are_named_changes_nothing(found: Reconstruction) -> None:
    clips, visible = batch()
    other = make()(clips, visible.flip(1))
    assert torch.equal(other.prediction, found.prediction)
    assert torch.equal(other.error, found.error)
    assert torch.equal(other.hidden_idx, found.hidden_idx)


def test_clips_of_a_batch_do_not_see_each_other(found: Reconstruction) -> None:
    clips, visible = batch()
    alone = make()(clips[1:2], visible[1:2])
    torch.testing.assert_close(alone.error, found.error[1:2])


def test_hidden_pixels_do_not_reach_the_prediction(found: Reconstruction) -> None:
    clips, visible = batch()
    hidden = int(found.hidden_idx[0, 0])
    t, y, x = hidden // 9, hidden // 3 % 3, hidden % 3
    clips[0, :, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 0
    assert torch.equal(make()(clips, visible).prediction, found.prediction)


def test_head_at_zero_predicts_zero_and_errs_by_31_over_32_on_textured_patches() -> None:
    zero = make("zero")(*batch())
    assert not zero.prediction.any()
    hidden = zero.error.gather(1, zero.hidden_idx)
    torch.testing.assert_close(hidden, torch.full((3, 13), 31 / 32), atol=1e-4, rtol=0)


def test_embedding_is_what_the_encoder_sees_without_positions_and_without_gradient() -> None:
    mae, (clips, _) = make(), batch()
    tokens = mae.embed(clips)
    assert tokens.shape == (3, 18, 12)
    assert not tokens.requires_grad
    everything = torch.arange(18).expand(3, -1)
    torch.testing.assert_close(
        mae.encode(mae.pixels(clips), everything), mae.encoder(tokens, everything)
    )


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    mae = make()
    mae(*batch()).loss.backward()
    for name, parameter in mae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_bfloat16_arithmetic_keeps_error_in_float32_and_near_the_exact_one(
    found: Reconstruction,
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = make()(*batch())
    assert rough.error.dtype == rough.prediction.dtype == torch.float32
    torch.testing.assert_close(rough.loss, found.loss, atol=0.05, rtol=0.05)


def test_patch_embedding_learns_from_visible_tokens_only() -> None:
    mae, seen = make(), []

    def look(module: nn.Module, given: Any, tokens: Tensor) -> None:
        assert not given[0].requires_grad  # pixels get no gradient
        tokens.register_hook(lambda gradient: seen.append(tuple(gradient.shape)))

    mae.encoder.patch_embed.register_forward_hook(look)
    mae(*batch()).loss.backward()
    assert seen == [(3, NUM_VISIBLE, 12)]


def test_weights_have_the_names_of_the_videomae_family() -> None:
    names = set(make().state_dict())
    assert {
        "mask_token",
        "encoder_to_decoder.weight",
        "encoder.patch_embed.proj.weight",
        "encoder.blocks.0.attn.qkv.weight",
        "encoder.blocks.0.attn.q_bias",
        "encoder.blocks.0.mlp.fc1.weight",
        "encoder.norm.bias",
        "decoder.blocks.1.norm2.weight",
        "decoder.head.weight",
    } <= names
    assert not any("pos_embed" in name for name in names)  # fixed tables are not stored


def test_mask_token_starts_within_one_deviation_of_zero() -> None:
    token = make().mask_token
    assert token.abs().max() <= 0.02
    assert token.any()
