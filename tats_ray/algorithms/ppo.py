"""Proximal policy optimisation over token choices: the paper's algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.terms import ActorCriticConfig, critic, entropy_bonus, scored_terms
from tats_ray.core.arrays import Float
from tats_ray.core.ranges import AtLeastOne, Positive, ShareBetween, require
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import (
    advantages,
    clip_fraction,
    clipped_surrogate,
    scored_sum,
    sharpened,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig(ActorCriticConfig):
    """PPO with the paper's coefficients [S tables 1 and 3]."""

    name: str = "ppo"
    clip_eps: ShareBetween = 0.2
    """Clip range of the ratio. PPO's usual default, as the paper does not state one [A11]."""
    update_steps: AtLeastOne = 1
    """Optimiser steps per update [R --update_steps_ppo]. With 1 the ratio is 1 throughout."""
    minibatch: Literal["entry", "all"] = "entry"
    """What one optimiser step takes: one stored entry, or all k at once [A10]."""
    sharpness: Positive = 1.0
    """How strongly the policy prefers harder tokens, with relative advantages. It settles at
    probabilities proportional to the expected error to this power."""

    def __post_init__(self) -> None:
        ActorCriticConfig.__post_init__(self)
        require(
            self.sharpness == 1 or self.advantage == "relative",
            "algorithm.sharpness",
            self.sharpness,
            "1 unless algorithm.advantage is relative",
        )

    def build(self, policy: SamplerPolicy) -> PPO:
        return PPO(self, policy)


class PPO(PolicyGradient):
    """L = -c1 J + c2 (V - R)^2 - c3 H, on one-step episodes [method section 7.6].

    J is the mean of min(ratio A, clip(ratio) A) over the scored tokens.
    """

    def __init__(self, config: PPOConfig, policy: SamplerPolicy) -> None:
        super().__init__(
            config,
            policy,
            num_steps=config.update_steps,
            takes_all_entries=config.minibatch == "all",
        )
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Scalars]:
        config = self.config
        terms = scored_terms(rollout, now, config.scored)
        advantage = advantages(
            terms.reward, rollout.value, terms.is_scored, config.advantage, self.group
        )
        if config.sharpness != 1:
            advantage = sharpened(advantage, rollout.log_prob, config.sharpness)
        gains = clipped_surrogate(terms.log_ratio, advantage, config.clip_eps)
        gain = scored_sum(gains, terms.is_scored, config.reduction)
        value_loss, judged = critic(rollout, now, self.group)
        loss = config.value_coef * value_loss - config.policy_coef * gain
        loss = loss - entropy_bonus(config, now, self.group)
        return loss, {"surrogate": gain.detach(), **judged}

    def moved(self, rollout: Rollout, now: Evaluation) -> Scalars:
        terms = scored_terms(rollout, now, self.config.scored)
        clipped = clip_fraction(terms.log_ratio, terms.is_scored, self.config.clip_eps)
        return {**super().moved(rollout, now), "clip_fraction": clipped}
