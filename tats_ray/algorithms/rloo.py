"""REINFORCE with a leave-one-out baseline: each mask against the clip's other masks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.terms import GroupConfig, entropy_bonus, group_spread, scored_terms
from tats_ray.core.arrays import Float
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import group_advantages, scored_sum
from tats_ray.ops.rewards import clip_return


@dataclass(frozen=True, kw_only=True, slots=True)
class RLOOConfig(GroupConfig):
    """RLOO [Kool et al. 2019; Ahmadian et al. 2024]."""

    name: str = "rloo"

    def build(self, policy: SamplerPolicy) -> RLOO:
        return RLOO(self, policy)


class RLOO(PolicyGradient):
    """L = -c1 mean of log pi A - c3 H, A = R - mean of the other masks' R.

    With joint scoring its policy term is an unbiased gradient of the expected return. One
    optimiser step on all of the memory.
    """

    def __init__(self, config: RLOOConfig, policy: SamplerPolicy) -> None:
        super().__init__(config, policy, takes_all_entries=True)
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Scalars]:
        config = self.config
        terms = scored_terms(rollout, now, config.scored)
        returns = clip_return(rollout.reward, rollout.visible_idx)
        better = group_advantages(returns, rollout.masks_per_clip, "leave_one_out")
        gain = scored_sum(terms.log_prob * better[:, None], terms.is_scored, "mean")
        loss = -config.policy_coef * gain - entropy_bonus(config, now, self.group)
        return loss, {"surrogate": gain.detach(), **group_spread(rollout)}
