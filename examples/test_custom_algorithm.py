"""Shape and gradient of the loss; does it find the hard tokens? Run with pytest."""

import math

import torch
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Evaluation, Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.learned import LearnedSampler
from torch import Tensor

from custom_algorithm import CustomAlgorithmConfig

GRID = TokenGrid(num_frames=2, image_size=8, tubelet=2, patch=1)  # 64 tokens
HARD = torch.arange(64) % 8 == 3
CLIPS, VISIBLE = 16, 6


def one_logit_per_token() -> SamplerPolicy:
    """It starts uniform; on one-hot tokens the actor's weights are the logits."""
    return SamplerPolicy(LearnedSampler([], 64, GRID), 64)


def play(policy: SamplerPolicy, step: int) -> Rollout:
    """One drawn mask for each clip; hidden tokens err by 0.9 if hard, else by 0.35."""
    tokens = torch.eye(64).expand(CLIPS, 64, 64)
    generator = torch.Generator().manual_seed(step)
    drawn = policy.act(tokens, VISIBLE, generator=generator)
    error = torch.where(HARD, 0.9, 0.35).expand(CLIPS, 64)
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=error.scatter(1, drawn.visible_idx, 0.0),
        policy_version=step,
        step=step,
        rank=0,
    )


def gradient(logits: Tensor, rollout: Rollout, policy: SamplerPolicy) -> Tensor:
    logits = logits.clone().requires_grad_()
    algorithm = CustomAlgorithmConfig(entropy_coef=0.0).build(policy)
    now = Evaluation(logits.log_softmax(1), rollout.value)
    loss, _ = algorithm.loss(rollout, now)
    return torch.autograd.grad(loss, logits)[0]


def test_loss_and_metrics_are_finite_numbers() -> None:
    policy = one_logit_per_token()
    rollout = play(policy, 0)
    algorithm = CustomAlgorithmConfig().build(policy)
    loss, metrics = algorithm.loss(rollout, policy(rollout.tokens))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert all(math.isfinite(value) for value in metrics.values())


def test_logit_gradient_is_the_closed_form() -> None:
    """By logit j: -(A_j - p_j sum A) / (B M). Write down your own here."""
    policy = one_logit_per_token()
    rollout = play(policy, 0)
    logits = torch.randn(CLIPS, 64, generator=torch.Generator().manual_seed(1))
    share = rollout.reward / rollout.reward.sum(1, keepdim=True)  # 0 where visible
    advantage = share * (64 - VISIBLE)
    pull = advantage - logits.softmax(1) * advantage.sum(1, keepdim=True)
    expected = -pull / (CLIPS * (64 - VISIBLE))
    torch.testing.assert_close(gradient(logits, rollout, policy), expected)


def test_hard_tokens_become_likelier_than_easy_ones() -> None:
    policy = one_logit_per_token()
    algorithm = CustomAlgorithmConfig(lr=3e-2).build(policy)
    for step in range(100):
        generator = torch.Generator().manual_seed(step)
        algorithm.update([play(policy, step)], generator=generator)
    with torch.no_grad():
        probability = policy.evaluate(torch.eye(64)[None]).log_prob[0].exp()
    assert probability[HARD].mean() > 1.5 * probability[~HARD].mean()
