"""Group-relative policy optimisation: PPO's surrogate, the group's mean in place of a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.terms import GroupConfig, entropy_bonus, group_spread, scored_terms
from tats_ray.core.arrays import Float
from tats_ray.core.ranges import AtLeastOne, ShareBetween
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import clip_fraction, clipped_surrogate, group_advantages, scored_sum
from tats_ray.ops.rewards import clip_return


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOConfig(GroupConfig):
    """GRPO [Shao et al. 2024], with a draw of tokens in place of a sentence."""

    name: str = "grpo"
    clip_eps: ShareBetween = 0.2
    """Clip range of the ratio. With scored joint, it is the ratio of the whole draw."""
    update_steps: AtLeastOne = 1
    """Optimiser steps per update. With 1 the ratio is 1 throughout."""
    minibatch: Literal["entry", "all"] = "all"
    """What one optimiser step takes: one stored entry, or all k at once."""

    def build(self, policy: SamplerPolicy) -> GRPO:
        return GRPO(self, policy)


class GRPO(PolicyGradient):
    """L = -c1 J - c3 H; J as PPO's, A = (R - group mean) / group deviation. The value is unused."""

    def __init__(self, config: GRPOConfig, policy: SamplerPolicy) -> None:
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
        returns = clip_return(rollout.reward, rollout.visible_idx)
        better = group_advantages(returns, rollout.masks_per_clip, "standardized")
        advantage = better[:, None].expand_as(terms.log_ratio)
        gains = clipped_surrogate(terms.log_ratio, advantage, config.clip_eps)
        gain = scored_sum(gains, terms.is_scored, "mean")
        loss = -config.policy_coef * gain - entropy_bonus(config, now, self.group)
        return loss, {"surrogate": gain.detach(), **group_spread(rollout)}

    def moved(self, rollout: Rollout, now: Evaluation) -> Scalars:
        terms = scored_terms(rollout, now, self.config.scored)
        clipped = clip_fraction(terms.log_ratio, terms.is_scored, self.config.clip_eps)
        return {**super().moved(rollout, now), "clip_fraction": clipped}
