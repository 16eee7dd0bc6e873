"""PPO's loss against closed forms and a loop in plain Python, all in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tats_ray.algorithms.ppo import PPO, PPOConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.types import Evaluation, Rollout
from tats_ray.models.policy import SamplerPolicy

BATCH, TOKENS, VISIBLE = 3, 9, 4
HIDDEN = TOKENS - VISIBLE
C1, C2, C3 = 0.7, 0.3, 0.2


def noise(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def make(policy: SamplerPolicy, **changes: Any) -> PPO:
    coefs = {"policy_coef": C1, "value_coef": C2, "entropy_coef": C3}
    return PPOConfig(**{**coefs, **changes}).build(policy)


def rollout(log_prob: Tensor) -> Rollout:
    generator = torch.Generator().manual_seed(5)
    draws = [torch.randperm(TOKENS, generator=generator)[:VISIBLE] for _ in range(BATCH)]
    visible = torch.stack(draws)
    return Rollout(
        tokens=torch.zeros(BATCH, TOKENS, 1),
        visible_idx=visible,
        log_prob=log_prob.detach(),
        value=noise(BATCH, seed=6),
        reward=noise(BATCH, TOKENS, seed=7).abs().scatter(1, visible, 0.0),
        policy_version=0,
        step=0,
        rank=0,
    )


def hidden_tokens(memory: Rollout, clip: int) -> list[int]:
    return sorted(set(range(TOKENS)) - set(memory.visible_idx[clip].tolist()))


def clip_returns(memory: Rollout) -> Tensor:
    means = [memory.reward[b, hidden_tokens(memory, b)].mean() for b in range(BATCH)]
    return torch.stack(means)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_logit_gradient_at_the_old_policy_is_the_closed_form(
    policy: SamplerPolicy, temperature: float, reduction: str
) -> None:
    logits = noise(BATCH, TOKENS, seed=1).requires_grad_()
    log_prob = (logits / temperature).log_softmax(1)
    value = noise(BATCH, seed=2).requires_grad_()
    memory = rollout(log_prob)
    algorithm = make(policy, reduction=reduction)
    loss, metrics = algorithm.loss(memory, Evaluation(log_prob, value))
    loss.backward()

    pi = log_prob.detach().exp()
    entropy = -(pi * log_prob.detach()).sum(1)
    expected = torch.zeros(BATCH, TOKENS, dtype=torch.float64)
    divisor = HIDDEN if reduction == "mean" else 1
    for b in range(BATCH):
        hidden = hidden_tokens(memory, b)
        advantage = memory.reward[b] - memory.value[b]
        for j in range(TOKENS):
            pull = (advantage[j] if j in hidden else 0.0) - pi[b, j] * advantage[hidden].sum()
            expected[b, j] = -C1 / (BATCH * divisor * temperature) * pull
            expected[b, j] += C3 / (BATCH * temperature) * pi[b, j] * (pi[b, j].log() + entropy[b])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected, atol=1e-15, rtol=0)
    assert value.grad is not None
    gap = value.detach() - clip_returns(memory)
    torch.testing.assert_close(value.grad, 2 * C2 / BATCH * gap, atol=1e-15, rtol=0)
    # At the old policy every ratio is 1: the gain is the plain mean advantage, nothing is clipped.
    totals = [
        (memory.reward[b] - memory.value[b])[hidden_tokens(memory, b)].sum() / divisor
        for b in range(BATCH)
    ]
    assert metrics["surrogate"] == pytest.approx(float(sum(totals)) / BATCH)
    assert algorithm.moved(memory, Evaluation(log_prob, value))["clip_fraction"] == 0


@pytest.mark.parametrize("scored", ["hidden", "visible"])
def test_loss_away_from_the_old_policy_equals_a_loop_over_tokens(
    policy: SamplerPolicy, scored: str
) -> None:
    old = noise(BATCH, TOKENS, seed=1).log_softmax(1)
    new = noise(BATCH, TOKENS, seed=3).log_softmax(1)
    value, memory = noise(BATCH, seed=2), rollout(old)
    algorithm, now = make(policy, scored=scored), Evaluation(new, value)
    loss, metrics = algorithm.loss(memory, now)
    gain, clipped, count = 0.0, 0, 0
    for b in range(BATCH):
        hidden = hidden_tokens(memory, b)
        taken = hidden if scored == "hidden" else memory.visible_idx[b].tolist()
        for i in taken:
            ratio = math.exp(float(new[b, i] - old[b, i]))
            advantage = float(memory.reward[b, i] - memory.value[b])
            bounded = min(max(ratio, 0.8), 1.2)
            gain += min(ratio * advantage, bounded * advantage) / len(taken) / BATCH
            clipped += abs(ratio - 1) > 0.2
            count += 1
    value_loss = float((value - clip_returns(memory)).square().mean())
    entropy = float(-(new.exp() * new).sum(1).mean())
    assert loss.item() == pytest.approx(-C1 * gain + C2 * value_loss - C3 * entropy, abs=1e-12)
    assert metrics["surrogate"] == pytest.approx(gain)
    assert metrics["value_loss"] == pytest.approx(value_loss)
    assert algorithm.moved(memory, now)["clip_fraction"] == pytest.approx(clipped / count)


def test_policy_gradient_is_zero_beyond_the_clip_range_on_the_wanted_side_and_only_there(
    policy: SamplerPolicy,
) -> None:
    old = torch.full((1, 6), -math.log(6), dtype=torch.float64)
    # Tokens 0 and 1 are visible; each hidden token has a ratio and the sign of its advantage.
    cases = {2: (1.5, 1), 3: (0.5, -1), 4: (1.5, -1), 5: (0.5, 1)}
    log_ratio = torch.zeros(1, 6, dtype=torch.float64)
    reward = torch.zeros(1, 6, dtype=torch.float64)
    for token, (ratio, sign) in cases.items():
        log_ratio[0, token] = math.log(ratio)
        reward[0, token] = sign
    memory = Rollout(
        tokens=torch.zeros(1, 6, 1),
        visible_idx=torch.tensor([[0, 1]]),
        log_prob=old,
        value=torch.zeros(1, dtype=torch.float64),
        reward=reward,
        policy_version=0,
        step=0,
        rank=0,
    )
    new = (old + log_ratio).requires_grad_()
    algorithm = make(policy, entropy_coef=0.0, value_coef=0.0)
    loss, _ = algorithm.loss(memory, Evaluation(new, memory.value))
    loss.backward()
    assert new.grad is not None
    # -c1 / M * ratio * advantage where the smaller gain is the unclipped one.
    expected = [0.0, 0.0, 0.0, 0.0, C1 / 4 * 1.5, -C1 / 4 * 0.5]
    assert new.grad[0].tolist() == pytest.approx(expected)


def test_joint_form_moves_the_logits_along_the_score_of_the_whole_draw(
    policy: SamplerPolicy,
) -> None:
    logits = noise(BATCH, TOKENS, seed=1).requires_grad_()
    log_prob = logits.log_softmax(1)
    memory = rollout(log_prob)
    algorithm = make(policy, scored="joint", entropy_coef=0.0, value_coef=0.0)
    loss, _ = algorithm.loss(memory, Evaluation(log_prob, memory.value))
    loss.backward()
    expected = torch.zeros(BATCH, TOKENS, dtype=torch.float64)
    for b in range(BATCH):
        advantage = clip_returns(memory)[b] - memory.value[b]
        urn = list(range(TOKENS))
        for token in memory.visible_idx[b].tolist():
            score = torch.zeros(TOKENS, dtype=torch.float64)
            score[token] = 1.0
            score[urn] -= logits[b, urn].detach().softmax(0)
            expected[b] -= C1 / BATCH * advantage * score
            urn.remove(token)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected, atol=1e-12, rtol=0)
    assert algorithm.moved(memory, Evaluation(log_prob, memory.value))["clip_fraction"] == 0


def test_standardized_advantage_makes_the_policy_term_blind_to_the_scale_of_rewards(
    policy: SamplerPolicy,
) -> None:
    def gradient(scale: float, **changes: Any) -> Tensor:
        logits = noise(BATCH, TOKENS, seed=1).requires_grad_()
        log_prob = logits.log_softmax(1)
        memory = rollout(log_prob)
        scaled = Rollout(
            tokens=memory.tokens,
            visible_idx=memory.visible_idx,
            log_prob=memory.log_prob,
            value=scale * memory.value,
            reward=scale * memory.reward,
            policy_version=0,
            step=0,
            rank=0,
        )
        algorithm = make(policy, entropy_coef=0.0, value_coef=0.0, **changes)
        loss, _ = algorithm.loss(scaled, Evaluation(log_prob, scaled.value))
        loss.backward()
        assert logits.grad is not None
        return logits.grad

    torch.testing.assert_close(gradient(10.0), 10 * gradient(1.0))
    for form in ("standardized", "relative"):
        torch.testing.assert_close(
            gradient(10.0, advantage=form), gradient(1.0, advantage=form), atol=1e-7, rtol=1e-6
        )
    # Without a baseline and scaled to the clip's mean, PPO's first step is AdaMAE's direction.
    logits = noise(BATCH, TOKENS, seed=1)
    memory = rollout(logits.log_softmax(1))
    adamae = torch.zeros_like(logits)
    for b in range(BATCH):
        hidden = hidden_tokens(memory, b)
        share = memory.reward[b] / memory.reward[b, hidden].mean()
        for j in range(TOKENS):
            own = share[j] if j in hidden else 0.0
            adamae[b, j] = -C1 / (BATCH * HIDDEN) * (own - logits[b].softmax(0)[j] * HIDDEN)
    torch.testing.assert_close(gradient(1.0, advantage="relative"), adamae)


def test_papers_coefficients_are_the_defaults() -> None:
    config = PPOConfig()
    assert (config.policy_coef, config.value_coef, config.entropy_coef) == (1e-4,) * 3
    assert (config.lr, config.clip_eps, config.update_steps) == (1.5e-6, 0.2, 1)
    assert (config.scored, config.advantage, config.reduction) == ("hidden", "raw", "mean")


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip_eps", 0.0), ("clip_eps", 1.0), ("update_steps", 0), ("sharpness", 0.0), ("lr", 0)],
)
def test_setting_that_makes_no_sense_is_refused_by_name_and_value(field: str, value: float) -> None:
    settings: dict[str, Any] = {field: value}
    with pytest.raises(UsageError, match=rf"algorithm.{field} must be .* got {value}"):
        PPOConfig(**settings)


def test_sharpness_needs_relative_advantages_of_single_tokens() -> None:
    with pytest.raises(UsageError, match=r"algorithm.sharpness must be 1 unless .* got 3"):
        PPOConfig(sharpness=3.0)
    with pytest.raises(UsageError, match="algorithm.scored is joint, got .relative"):
        PPOConfig(sharpness=3.0, advantage="relative", scored="joint")
