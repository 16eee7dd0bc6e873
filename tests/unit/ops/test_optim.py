"""AdamW's groups: what decays and what does not; one step against the textbook."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tats_ray.config.schema import ModelConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import build_classifier
from tats_ray.ops.optim import adamw, decayed, layer_scales, layered_adamw


def groups(module: nn.Module) -> dict[str, float]:
    """Parameter name -> weight decay."""
    optimizer = adamw(module, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    return {name: decay[id(p)] for name, p in module.named_parameters()}


def test_every_parameter_is_in_one_group_and_only_matrices_decay(
    mae: MaskedAutoencoder, policy: SamplerPolicy
) -> None:
    decay = {**groups(mae), **groups(policy)}
    exempt = ("bias", "norm", "mask_token", "pos_embed")
    for name, value in decay.items():
        assert value == (0.0 if any(part in name for part in exempt) else 0.05), name
    assert decay["mask_token"] == decay["sampler.pos_embed"] == 0.0
    assert decay["encoder.blocks.0.attn.q_bias"] == 0.0
    assert decay["encoder.patch_embed.proj.weight"] == decay["sampler.actor.weight"] == 0.05


def test_nested_names_are_exempt_by_their_last_part_alone() -> None:
    matrix = nn.Parameter(torch.zeros(2, 2))
    assert not decayed("decoder.inner.pos_embed", matrix)
    assert not decayed("a.v_bias", matrix)
    assert decayed("pos_embed.weight", matrix)
    assert not decayed("weight", nn.Parameter(torch.zeros(2)))


def test_parameter_without_gradient_is_left_to_itself() -> None:
    module = nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    optimizer = adamw(module, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    assert [len(g["params"]) for g in optimizer.param_groups] == [1]


def test_two_steps_follow_the_formula_of_adamw() -> None:
    lr, decay, beta1, beta2, eps = 0.1, 0.05, 0.9, 0.95, 1e-8
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    optimizer = adamw(module, lr=lr, betas=(beta1, beta2), weight_decay=decay)
    weight, mean, square = 2.0, 0.0, 0.0
    for step, gradient in enumerate((0.3, -0.7), start=1):
        module.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        unbiased = mean / (1 - beta1**step), square / (1 - beta2**step)
        weight = weight * (1 - lr * decay) - lr * unbiased[0] / (math.sqrt(unbiased[1]) + eps)
        assert module.weight.item() == pytest.approx(weight, rel=1e-5)


def test_layer_decay_has_the_values_of_the_method() -> None:
    """Tokenizer, 12 blocks, head; 0.75^(13 - layer)."""
    stated = [
        0.02376, 0.03168, 0.04224, 0.05631, 0.07508, 0.10011, 0.13348, 0.17798, 0.2373, 0.31641,
        0.42188, 0.5625, 0.75, 1.0,
    ]  # fmt: skip
    assert layer_scales(12, 0.75) == pytest.approx(stated, abs=5e-6)


def test_every_parameter_of_a_classifier_is_in_the_group_of_its_layer() -> None:
    grid = TokenGrid(num_frames=4, image_size=16, tubelet=2, patch=8)
    model = ModelConfig(size="tiny", patch=8, depth=2)
    network = build_classifier(model, grid, 3, seed=0)
    optimizer = layered_adamw(
        network, depth=2, layer_decay=0.5, lr=0.1, betas=(0.9, 0.999), weight_decay=0.05
    )
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, parameter in network.named_parameters():
        group = of[id(parameter)]
        layer = {"encoder.patch_embed": 0, "encoder.blocks.0": 1, "encoder.blocks.1": 2}.get(
            ".".join(name.split(".")[: 3 if "blocks" in name else 2]), 3
        )
        assert group["lr_scale"] == 0.5 ** (3 - layer), name
        assert group["lr"] == pytest.approx(0.1 * group["lr_scale"])
        assert group["weight_decay"] == (0.05 if decayed(name, parameter) else 0.0)
    assert len(optimizer.param_groups) == 8  # four layers, decayed or not
