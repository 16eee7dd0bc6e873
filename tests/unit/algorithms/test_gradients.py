"""Gradients of A2C, GRPO and RLOO against closed forms, and PPO's loss against torchrl's."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss

from tats_ray.algorithms.a2c import A2CConfig
from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.algorithms.rloo import RLOOConfig
from tats_ray.core.types import Evaluation, Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.selection import plackett_luce_log_prob

BATCH, TOKENS, VISIBLE = 6, 7, 3
COEFS = {"policy_coef": 0.7, "entropy_coef": 0.2}


def noise(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def rollout(log_prob: Tensor, *, num_visible: int = VISIBLE, masks_per_clip: int = 1) -> Rollout:
    generator = torch.Generator().manual_seed(5)
    rows, tokens = log_prob.shape
    draws = [torch.randperm(tokens, generator=generator)[:num_visible] for _ in range(rows)]
    visible = torch.stack(draws)
    return Rollout(
        tokens=torch.zeros(rows, tokens, 1),
        visible_idx=visible,
        log_prob=log_prob.detach(),
        value=noise(rows, seed=6),
        reward=noise(rows, tokens, seed=7),
        policy_version=0,
        step=0,
        rank=0,
        masks_per_clip=masks_per_clip,
    )


def returns_of(memory: Rollout) -> list[float]:
    """Mean reward over hidden tokens, in plain Python."""
    found = []
    for shown, reward in zip(memory.visible_idx.tolist(), memory.reward.tolist(), strict=True):
        hidden = [value for token, value in enumerate(reward) if token not in shown]
        found.append(sum(hidden) / len(hidden))
    return found


def score_of_draw(logits: Tensor, drawn: list[int]) -> Tensor:
    """Gradient of a draw's Plackett-Luce log-probability, urn after urn."""
    score, urn = torch.zeros_like(logits), list(range(len(logits)))
    for token in drawn:
        score[token] += 1
        score[urn] -= logits[urn].softmax(0)
        urn.remove(token)
    return score


def entropy_gradient(logits: Tensor) -> Tensor:
    pi = logits.softmax(0)
    spread = -(pi * pi.log()).sum()
    return -pi * (pi.log() + spread)


def gradient(algorithm: Any, memory: Rollout, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of an algorithm's loss, for logits and values."""
    logits = logits.detach().clone().requires_grad_()
    value = noise(len(logits), seed=2).requires_grad_()
    loss, _ = algorithm.loss(memory, Evaluation(logits.log_softmax(1), value))
    found = torch.autograd.grad(loss, [logits, value], allow_unused=True)
    return found[0], torch.zeros_like(value) if found[1] is None else found[1]


@pytest.mark.parametrize("scored", ["hidden", "visible", "joint"])
@pytest.mark.parametrize("advantage", ["raw", "standardized"])
def test_a2cs_gradient_is_ppos_at_ratio_one(
    policy: SamplerPolicy, scored: Any, advantage: Any
) -> None:
    logits = noise(BATCH, TOKENS, seed=1)
    memory = rollout(logits.log_softmax(1))
    fields = {**COEFS, "value_coef": 0.3, "scored": scored, "advantage": advantage}
    found = gradient(A2CConfig(**fields).build(policy), memory, logits)
    expected = gradient(PPOConfig(**fields).build(policy), memory, logits)
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("scored", ["joint", "visible"])
@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_gradient_of_a_group_is_each_draws_score_times_its_advantage_in_the_group(
    policy: SamplerPolicy, config: Any, scored: str
) -> None:
    """Two clips with three masks each, at the policy that drew."""
    logits = noise(2, TOKENS, seed=1).repeat_interleave(3, 0)
    memory = rollout(logits.log_softmax(1), masks_per_clip=3)
    algorithm = config(**COEFS, scored=scored, group_size=3).build(policy)
    found, value_gradient = gradient(algorithm, memory, logits)
    returns = returns_of(memory)
    expected = torch.zeros_like(logits)
    for row in range(6):
        group = returns[row // 3 * 3 : row // 3 * 3 + 3]
        if config is GRPOConfig:
            mean = sum(group) / 3
            deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / 3)
            advantage = (returns[row] - mean) / (deviation + 1e-6)
        else:
            advantage = returns[row] - (sum(group) - returns[row]) / 2
        drawn = memory.visible_idx[row].tolist()
        if scored == "joint":
            score = score_of_draw(logits[row], drawn)
        else:
            score = torch.zeros(TOKENS, dtype=torch.float64)
            score[drawn] = 1 / VISIBLE
            score -= logits[row].softmax(0)
        expected[row] = -0.7 / 6 * advantage * score - 0.2 / 6 * entropy_gradient(logits[row])
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
    assert not value_gradient.any()


def test_rloos_expected_gradient_is_that_of_the_expected_return(policy: SamplerPolicy) -> None:
    """Every pair of draws of one clip, weighted by its probability: no bias."""
    logits = noise(1, 4, seed=1)
    draws = torch.tensor(list(itertools.permutations(range(4), 2)))
    reward = noise(1, 4, seed=3).expand(len(draws), 4)
    free = logits.detach().clone().requires_grad_()
    log_prob = plackett_luce_log_prob(free.log_softmax(1).expand(len(draws), 4), draws)
    hidden = torch.ones(len(draws), 4, dtype=torch.bool).scatter(1, draws, False)
    returns = (reward * hidden).sum(1) / 2
    expected = torch.autograd.grad(-(log_prob.exp() * returns).sum(), free)[0]
    algorithm = RLOOConfig(policy_coef=1.0, entropy_coef=0.0, group_size=2).build(policy)
    total, weights = torch.zeros_like(logits), log_prob.detach().exp()
    for first, second in itertools.product(range(len(draws)), repeat=2):
        rows = [first, second]
        memory = replace(
            rollout(logits.log_softmax(1).expand(2, 4), num_visible=2, masks_per_clip=2),
            visible_idx=draws[rows],
            reward=reward[rows],
        )
        found, _ = gradient(algorithm, memory, logits.expand(2, 4))
        total += weights[first] * weights[second] * found.sum(0)
    torch.testing.assert_close(total, expected, atol=1e-14, rtol=0)


def test_group_whose_masks_earn_the_same_has_nothing_to_learn_from(policy: SamplerPolicy) -> None:
    logits = noise(2, TOKENS, seed=1).repeat_interleave(3, 0).float()
    same = replace(
        rollout(logits.log_softmax(1), masks_per_clip=3),
        value=torch.zeros(6),
        reward=torch.full((6, TOKENS), 0.1),
    )
    for config in (GRPOConfig, RLOOConfig):
        algorithm = config(policy_coef=1.0, entropy_coef=0.0, group_size=3).build(policy)
        log_prob = logits.clone().requires_grad_()
        loss, metrics = algorithm.loss(same, Evaluation(log_prob.log_softmax(1), same.value))
        loss.backward()
        assert log_prob.grad is not None
        assert log_prob.grad.abs().max() < 0.1
        assert metrics["group_spread"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_ppos_loss_is_torchrls(policy: SamplerPolicy, spread: float) -> None:
    """One visible token a clip is one categorical action: torchrl's own setting."""
    old_logits = noise(BATCH, TOKENS, seed=1)
    logits = (old_logits + spread * noise(BATCH, TOKENS, seed=2)).requires_grad_()
    value = noise(BATCH, seed=3).requires_grad_()
    memory = rollout(old_logits.log_softmax(1), num_visible=1)
    algorithm = PPOConfig(**COEFS, value_coef=0.3, scored="joint", clip_eps=0.2).build(policy)
    loss, metrics = algorithm.loss(memory, Evaluation(logits.log_softmax(1), value))

    returns = torch.tensor(returns_of(memory), dtype=torch.float64)
    action = memory.visible_idx[:, 0]
    data = TensorDict(
        {
            "row": torch.arange(BATCH),
            "action": action,
            "action_log_prob": memory.log_prob.gather(1, action[:, None])[:, 0],
            "advantage": (returns - memory.value)[:, None],
            "value_target": returns[:, None],
        },
        [BATCH],
    )
    actor = ProbabilisticActor(
        TensorDictModule(lambda row: logits[row], in_keys=["row"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    critic = TensorDictModule(
        lambda row: value[row][:, None], in_keys=["row"], out_keys=["state_value"]
    )
    theirs = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=0.2,
        entropy_coeff=1.0,
        critic_coeff=1.0,
        loss_critic_type="l2",
        normalize_advantage=False,
    )(data)
    assert metrics["surrogate"] == pytest.approx(-theirs["loss_objective"].item(), abs=1e-6)
    assert metrics["value_loss"] == pytest.approx(theirs["loss_critic"].item(), abs=1e-6)
    total = (
        0.7 * theirs["loss_objective"] + 0.3 * theirs["loss_critic"] + 0.2 * theirs["loss_entropy"]
    )
    assert loss.item() == pytest.approx(total.item(), abs=1e-6)
    ours_gradient = torch.autograd.grad(loss, [logits, value])
    their_gradient = torch.autograd.grad(total, [logits, value])
    torch.testing.assert_close(ours_gradient, their_gradient, atol=1e-6, rtol=0)
