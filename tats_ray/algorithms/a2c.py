"""Advantage actor-critic: the policy gradient against a learned value, without a ratio."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.terms import ActorCriticConfig, critic, entropy_bonus, scored_terms
from tats_ray.core.arrays import Float
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import advantages, scored_sum


@dataclass(frozen=True, kw_only=True, slots=True)
class A2CConfig(ActorCriticConfig):
    """Advantage actor-critic [Mnih et al. 2016], synchronous, on one-step episodes."""

    name: str = "a2c"

    def build(self, policy: SamplerPolicy) -> A2C:
        return A2C(self, policy)


class A2C(PolicyGradient):
    """L = -c1 mean of log pi A + c2 (V - R)^2 - c3 H, A = r - V at the time of the draw.

    One optimiser step on all of the memory: without a ratio, a second one would be off-policy. Its
    gradient is PPO's at ratio 1.
    """

    def __init__(self, config: A2CConfig, policy: SamplerPolicy) -> None:
        super().__init__(config, policy, takes_all_entries=True)
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Scalars]:
        config = self.config
        terms = scored_terms(rollout, now, config.scored)
        advantage = advantages(
            terms.reward, rollout.value, terms.is_scored, config.advantage, self.group
        )
        gain = scored_sum(terms.log_prob * advantage, terms.is_scored, config.reduction)
        value_loss, judged = critic(rollout, now, self.group)
        loss = config.value_coef * value_loss - config.policy_coef * gain
        loss = loss - entropy_bonus(config, now, self.group)
        return loss, {"surrogate": gain.detach(), **judged}
