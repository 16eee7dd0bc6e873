"""AdaMAE's sampling loss: a score-function gradient on hidden tokens, a baseline optional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.terms import SteeredConfig, entropy_bonus, scored_terms
from tats_ray.core.arrays import Float
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import scored_sum
from tats_ray.ops.rewards import clip_return


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforceConfig(SteeredConfig):
    """Score-function gradient in AdaMAE's form [A; Williams 1992]."""

    name: str = "reinforce"
    policy_coef: float = 1e-4
    """Weight of the sampling loss, fixed inside AdaMAE's training loop [A]."""
    baseline: Literal["none", "clip_mean"] = "none"
    """Subtracted from each token's reward: nothing, as in AdaMAE, or the mean reward of the clip's
    hidden tokens. clip_mean makes the gradient less noisy, and needs an entropy weight."""
    entropy_coef: float = 0.0
    """Weight of the entropy over all tokens. AdaMAE has no such term."""

    def build(self, policy: SamplerPolicy) -> Reinforce:
        return Reinforce(self, policy)


class Reinforce(PolicyGradient):
    """L = -c1 mean over clips and hidden tokens of log pi * reward [method section 6].

    Its fixed point has pi in proportion to error times the chance of being hidden, so it limits
    itself: no entropy term is needed. With a baseline it does not, and needs one. The value head
    is not trained.
    """

    def __init__(self, config: ReinforceConfig, policy: SamplerPolicy) -> None:
        super().__init__(config, policy)
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Scalars]:
        terms = scored_terms(rollout, now, "hidden")
        reward = terms.reward
        if self.config.baseline == "clip_mean":
            reward = reward - clip_return(reward, rollout.visible_idx)[:, None]
        gain = scored_sum(terms.log_prob * reward, terms.is_scored, "mean")
        loss = -self.config.policy_coef * gain
        if self.config.entropy_coef:
            loss = loss - entropy_bonus(self.config, now, self.group)
        return loss, {"surrogate": gain.detach()}
