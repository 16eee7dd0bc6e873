"""Is it a sampler, and does it find the tokens that are hard? Run with pytest."""

import torch
from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.dry_run import check_sampler

from custom_sampler import CustomSampler

WIDTH, CLIPS, VISIBLE = 16, 16, 6
GRID = TokenGrid(num_frames=4, image_size=16, patch=4)  # 2 x 4 x 4 = 32 tokens
HARD = torch.arange(32) % 8 == 3


def play(policy: SamplerPolicy, step: int) -> Rollout:
    """Hidden tokens err by 0.9 if hard, else by 0.35; hard ones are marked."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randn(CLIPS, 32, WIDTH, generator=generator)
    tokens[:, HARD, 0] += 3.0
    drawn = policy.act(tokens, VISIBLE, generator=generator)
    error = torch.where(HARD, 0.9, 0.35).expand(CLIPS, 32)
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


def test_run_accepts_it() -> None:
    """Number, shape and values of its logits, and parameters to train."""
    named = SamplerConfig(
        name="custom_sampler:CustomSampler",
    )
    check_sampler(named, ModelConfig(size="tiny"), GRID, seed=0)


def test_hard_tokens_become_likelier_than_easy_ones() -> None:
    torch.manual_seed(0)
    policy = SamplerPolicy(CustomSampler(WIDTH, GRID), WIDTH)
    algorithm = ReinforceConfig(lr=1e-2, policy_coef=1.0).build(policy)
    for step in range(60):
        generator = torch.Generator().manual_seed(step)
        algorithm.update([play(policy, step)], generator=generator)
    probability = play(policy, 60).log_prob.exp()
    assert probability[:, HARD].mean() > 1.5 * probability[:, ~HARD].mean()
