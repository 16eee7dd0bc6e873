"""Where each objective leads, on clips whose errors are known: towards the hard tokens or away."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tats_ray.envs import TokenSelectionVectorEnv
from torch import Tensor

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.config.load import parse_config
from tats_ray.config.plugins import ALGORITHMS
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.learned import LearnedSampler
from tats_ray.ops.selection import entropy

GRID = TokenGrid(num_frames=2, image_size=8, tubelet=2, patch=1)  # 64 tokens
HARD = torch.arange(64) % 8 == 3
BATCH, VISIBLE = 16, 6


class FixedErrors:
    """A scorer whose hidden tokens err by .9 where a thing moves, by `easy` elsewhere.

    Showing a hard token takes its error out of the clip's mean, so that the mean depends on what
    is shown. Its embeddings are one-hot: a linear actor on them is one free logit per token.
    """

    def __init__(self, easy: float = 0.35) -> None:
        self.error = torch.where(HARD, 0.9, easy)

    def embed(self, clips: Tensor) -> Tensor:
        return torch.eye(64).expand(len(clips), 64, 64)

    def score(self, clips: Tensor, visible_idx: Tensor) -> Tensor:
        return self.error.expand(len(clips), -1).scatter(1, visible_idx, 0.0)


def train(
    algorithm: AlgorithmConfig,
    reward: str = "",
    *,
    steps: int,
    scorer: FixedErrors | None = None,
    num_visible: int = VISIBLE,
    seed: int = 0,
) -> SamplerPolicy:
    """A policy that was trained on the same clip again and again."""
    policy = SamplerPolicy(LearnedSampler([], 64, GRID), 64)
    policy.sampler.pos_embed.requires_grad_(False)  # the logits are the actor's weights alone
    learner: Any = algorithm.build(policy)
    env = TokenSelectionVectorEnv(
        BATCH,
        scorer=scorer or FixedErrors(),
        grid=GRID,
        width=64,
        num_visible=num_visible,
        reward=reward or algorithm.default_reward,
        arrays="torch",
    )
    clips = torch.zeros(BATCH, *GRID.clip_shape, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        tokens, _ = env.reset(options={"clips": clips})
        drawn = policy.act(tokens, num_visible, generator=generator)
        _, _, _, _, info = env.step(drawn.visible_idx)
        memory = Rollout(
            tokens=tokens,
            visible_idx=drawn.visible_idx,
            log_prob=drawn.log_prob,
            value=drawn.value,
            reward=info["token_reward"],
            policy_version=step,
            step=step,
            rank=0,
            masks_per_clip=algorithm.masks_per_clip,
        )
        learner.update([memory], generator=generator)
    return policy


def preference(algorithm: AlgorithmConfig, reward: str, steps: int = 300) -> float:
    """Mean probability of a hard token over that of an easy one, after training."""
    policy = train(algorithm, reward, steps=steps)
    with torch.no_grad():
        probability = policy.evaluate(torch.eye(64)[None]).log_prob[0].exp()
    return float(probability[HARD].mean() / probability[~HARD].mean())


def ppo(**changes: Any) -> PPOConfig:
    """Policy weight 1, entropy weight a tenth of it, and a rate for hundreds of steps."""
    coefs = {"policy_coef": 1.0, "value_coef": 1.0, "entropy_coef": 0.1}
    return PPOConfig(lr=1e-2, weight_decay=0.0, **{**coefs, **changes})


def test_hidden_tokens_that_earn_their_own_error_become_visible_where_it_is_high() -> None:
    assert preference(ppo(), "token_error") > 1.5


def test_hidden_tokens_that_earn_their_ease_become_visible_where_the_error_is_low() -> None:
    # Ease of a token of error e is m / (m + e) with m about .42: .32 and .55, a ratio of .58.
    config = ppo(advantage="relative", entropy_coef=0.0)
    assert 0.5 < preference(config, "token_ease", 300) < 0.75


def test_target_entropy_needs_a_weight_to_steer() -> None:
    with pytest.raises(UsageError, match="entropy_coef must be positive if algorithm.target_ent"):
        ReinforceConfig(target_entropy=0.5)


@pytest.mark.parametrize("target", [0.95, 0.8])
def test_entropy_is_held_at_its_target_where_a_fixed_weight_lets_it_fall(target: float) -> None:
    """The fixed weight of .1 ends near .5 of log N here."""
    config = ppo(advantage="standardized", target_entropy=target)
    policy = train(replace(config, lr=3e-2), steps=100)
    with torch.no_grad():
        log_prob = policy.evaluate(torch.eye(64)[None]).log_prob
    assert float(entropy(log_prob)) / math.log(64) == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("scored", ["visible", "joint"])
def test_visible_tokens_that_earn_the_clips_error_avoid_the_hard_tokens(scored: str) -> None:
    assert preference(ppo(scored=scored, entropy_coef=0.001), "clip_error") < 1 / 1.5


@pytest.mark.parametrize("scored", ["visible", "joint"])
def test_visible_tokens_that_earn_minus_the_clips_error_seek_the_hard_tokens(scored: str) -> None:
    found = preference(ppo(scored=scored, entropy_coef=0.001), "negative_clip_error")
    assert found > 1.5


def test_adamaes_loss_prefers_hard_tokens_in_proportion_to_their_error_and_stops_there() -> None:
    # Fixed point: p in proportion to error times the chance to be hidden; .9 / .35 = 2.57, and a
    # little less since what is preferred is hidden less often [method section 6: 2.41].
    config = ReinforceConfig(policy_coef=1.0, lr=3e-2, weight_decay=0.0)
    halfway, end = (preference(config, "token_error", steps) for steps in (200, 400))
    assert 2.1 < end < 2.57
    assert abs(end - halfway) < 0.35


def test_sharpened_ppo_settles_at_the_error_times_the_chance_to_be_hidden_to_that_power() -> None:
    # Solved by iteration for sharpness 2, with P(hidden) of about 1 - 6 p: 4.0 times.
    config = ppo(advantage="relative", sharpness=2.0, entropy_coef=0.0)
    assert 3.5 < preference(config, "token_error", 600) < 4.5


# A rate for hundreds of steps; apart from it, what each needs to end close to deterministic: an
# entropy weight that is small against the policy's. AdaMAE's form has none, and stops where pi is
# in proportion to error times the chance to be hidden, so that its easy tokens must be very easy.
SOLVES: dict[str, tuple[dict[str, float], float]] = {
    "ppo": ({"entropy_coef": 0.01, "value_coef": 1.0}, 0.35),
    "a2c": ({"entropy_coef": 0.01, "value_coef": 1.0}, 0.35),
    "reinforce": ({}, 1e-4),
    "grpo": ({"entropy_coef": 0.01}, 0.35),
    "rloo": ({"entropy_coef": 0.01}, 0.35),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_shows_nine_of_ten_of_the_best_tokens(name: str, seed: int) -> None:
    """As many tokens can be shown as are hard; a uniform draw shows an eighth of those."""
    fields, easy = SOLVES[name]
    raw = {"name": name, "lr": 5e-2, "weight_decay": 0.0, "policy_coef": 1.0, **fields}
    algorithm = parse_config({"algorithm": raw}).algorithm
    num_hard = int(HARD.sum())
    policy = train(algorithm, steps=250, scorer=FixedErrors(easy), num_visible=num_hard, seed=seed)
    generator = torch.Generator().manual_seed(100 + seed)
    tokens = torch.eye(64).expand(200, -1, -1)
    drawn = policy.act(tokens, num_hard, generator=generator).visible_idx
    assert HARD[drawn].sum(1).float().mean() / num_hard >= 0.9


def test_baseline_makes_reinforce_go_on_where_adamaes_form_stops() -> None:
    config = ReinforceConfig(
        policy_coef=1.0, lr=3e-2, weight_decay=0.0, baseline="clip_mean", entropy_coef=0.05
    )
    assert preference(config, "token_error") > 5  # AdaMAE's own ends at 2.4
