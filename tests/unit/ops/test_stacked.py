"""Stacked optimisers move every copy as torch's own would move it alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tats_ray.core.seeds import stream
from tats_ray.ops.stacked import StackedAdamW, StackedOptimizer, StackedSGD

LR = torch.tensor([0.01, 0.1, 0.3])
DECAY = torch.tensor([0.0, 0.05, 0.4])
FACTORS = [0.25, 0.5, 1.0, 0.7, 0.2]


def start() -> dict[str, Tensor]:
    """Three copies of a matrix and of a bias."""
    generator = stream(0, "stacked")
    shapes = {"head.weight": (3, 4, 5), "head.bias": (3, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def loss(weight: Tensor, bias: Tensor, step: int) -> Tensor:
    x = torch.randn(5, generator=stream(0, "x", step))
    return (weight @ x + bias).tanh().square().sum()


def run(optimizer: StackedOptimizer, parameters: dict[str, Tensor]) -> None:
    for step, factor in enumerate(FACTORS):
        sum(
            (
                loss(weight, bias, step)
                for weight, bias in zip(
                    parameters["head.weight"], parameters["head.bias"], strict=True
                )
            ),
            torch.zeros(()),
        ).backward()
        optimizer.step(factor)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_copy_moves_as_under_torchs_optimizer_alone(name: str) -> None:
    stacked = {key: value.clone().requires_grad_() for key, value in start().items()}
    run({"sgd": StackedSGD, "adamw": StackedAdamW}[name](stacked, LR, DECAY), stacked)
    for copy in range(3):
        weight, bias = (start()[key][copy].clone().requires_grad_() for key in stacked)
        groups = [
            {"params": [weight], "weight_decay": float(DECAY[copy])},
            {"params": [bias], "weight_decay": 0.0},
        ]
        alone: torch.optim.Optimizer
        if name == "sgd":
            alone = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
        else:
            alone = torch.optim.AdamW(groups, lr=1.0)
        for step, factor in enumerate(FACTORS):
            for group in alone.param_groups:
                group["lr"] = float(LR[copy]) * factor
            alone.zero_grad()
            loss(weight, bias, step).backward()
            alone.step()
        torch.testing.assert_close(stacked["head.weight"][copy], weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stacked["head.bias"][copy], bias, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(weight, start()["head.weight"][copy], atol=1e-2)


def test_lars_steps_are_a_share_of_each_matrix_and_plain_for_biases() -> None:
    stacked = {key: value.clone().requires_grad_() for key, value in start().items()}
    optimizer = StackedSGD(stacked, LR, DECAY, trust=0.001)
    gradients = {key: torch.randn_like(value) for key, value in stacked.items()}
    for key, value in stacked.items():
        value.grad = gradients[key].clone()
    optimizer.step(1.0)
    for copy in range(3):
        before = start()["head.weight"][copy]
        moved = stacked["head.weight"][copy] - before
        length = LR[copy] * 0.001 * before.norm()
        torch.testing.assert_close(moved.norm(), length, rtol=1e-3, atol=1e-6)
        update = gradients["head.weight"][copy] + DECAY[copy] * before
        cosine = -(moved * update).sum() / moved.norm() / update.norm()
        torch.testing.assert_close(cosine, torch.tensor(1.0), rtol=1e-3, atol=0)
        bias = start()["head.bias"][copy] - LR[copy] * gradients["head.bias"][copy]
        torch.testing.assert_close(stacked["head.bias"][copy], bias)
