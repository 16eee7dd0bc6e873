"""Heads against torch's own modules, and stacks of heads against each of them alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.probe_heads import (
    AttentiveHead,
    HeadStack,
    fold_batch_norm,
    linear_head,
    norm_head,
    raw_tokens,
)
from tats_ray.ops.patches import imagenet_normalize

WIDTH, CLASSES = 16, 3


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(0, "heads", *shape))


def shake(head: nn.Module) -> nn.Module:
    """Away from zeros and ones, so that no parameter can be forgotten."""
    generator = stream(0, "shake")
    with torch.no_grad():
        for value in head.parameters():
            value.add_(0.5 * torch.randn(value.shape, generator=generator))
    return head


def test_raw_tokens_are_what_the_final_norm_would_read(
    mae: MaskedAutoencoder, clips: Tensor, grid: TokenGrid
) -> None:
    everything = torch.arange(grid.num_tokens).expand(len(clips), -1)
    normed = mae.encode(mae.pixels(clips), everything)
    raw = raw_tokens(mae.encoder, imagenet_normalize(mae.pixels(clips)))
    torch.testing.assert_close(mae.encoder.norm(raw), normed)
    assert not torch.allclose(raw, normed, atol=1e-2)
    assert not raw.requires_grad


def test_attention_is_torchs_multi_head_attention_with_one_query() -> None:
    head = AttentiveHead(WIDTH, CLASSES, num_heads=4)
    shake(head)
    tokens = draw(2, 7, WIDTH)
    peer = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(
            torch.cat([head.to_query.weight, head.to_key.weight, head.to_value.weight])
        )
        peer.in_proj_bias.copy_(
            torch.cat([head.to_query.bias, draw(WIDTH), head.to_value.bias])  # of keys: no matter
        )
        peer.out_proj.weight.copy_(head.project.weight)
        peer.out_proj.bias.copy_(head.project.bias)
    expected, _ = peer(head.query.expand(2, 1, -1), tokens, tokens)
    torch.testing.assert_close(head.project(head.attend(tokens)), expected[:, 0])


def test_attentive_head_sees_every_token_and_no_order() -> None:
    head = AttentiveHead(WIDTH, CLASSES, num_heads=4)
    shake(head)
    tokens = draw(1, 7, WIDTH)
    torch.testing.assert_close(head(tokens), head(tokens.flip(1)))
    for place in range(7):
        other = tokens.clone()
        other[0, place] += draw(WIDTH)
        assert not torch.allclose(head(other), head(tokens), atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "norm", "attentive"])
def test_stack_computes_what_each_of_its_heads_does(name: str) -> None:
    head = {
        "linear": lambda: linear_head(WIDTH, CLASSES),
        "norm": lambda: norm_head(WIDTH, CLASSES),
        "attentive": lambda: AttentiveHead(WIDTH, CLASSES, num_heads=4),
    }[name]()
    stack = HeadStack(head, 3)
    generator = stream(0, "stack")
    with torch.no_grad():
        for value in stack.parameters.values():
            value.add_(torch.randn(value.shape, generator=generator))
    features = draw(5, 7, WIDTH) if name == "attentive" else draw(5, WIDTH)
    together = stack(features)
    assert together.shape == (3, 5, CLASSES)
    for logits, alone in zip(together, stack, strict=True):
        torch.testing.assert_close(logits, alone(features), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_copies_start_as_the_head_they_are_of() -> None:
    head = norm_head(WIDTH, CLASSES)
    features = draw(5, WIDTH)
    for logits in HeadStack(head, 2)(features):
        torch.testing.assert_close(logits, head(features))
    assert float(head(features).detach().abs().max()) < 1e-3


def test_batch_norm_folds_into_the_linear_layer_behind_it() -> None:
    norm = nn.BatchNorm1d(WIDTH, eps=1e-6, affine=False)
    for step in range(5):
        norm(3 + 2 * torch.randn(8, WIDTH, generator=stream(0, "norm", step)))
    norm.eval()
    head = linear_head(WIDTH, CLASSES)
    shake(head)
    features = draw(5, WIDTH)
    folded = fold_batch_norm(norm, head)
    torch.testing.assert_close(folded(features), head(norm(features)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(folded.weight, head.weight)
