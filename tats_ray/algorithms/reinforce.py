"""AdaMAE's sampling loss: a score-function gradient on hidden tokens, without a baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.arrays import Float
from tats_ray.core.types import Evaluation, Metrics, Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import scored_sum
from tats_ray.ops.selection import is_visible


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforceConfig(AlgorithmConfig):
    """Score-function gradient in AdaMAE's form [A; Williams 1992]."""

    name: str = "reinforce"
    policy_coef: float = 1e-4
    """Weight of the sampling loss, fixed inside AdaMAE's training loop [A]."""

    def build(self, policy: SamplerPolicy) -> Reinforce:
        return Reinforce(self, policy)


class Reinforce(PolicyGradient):
    """L = -c1 mean over clips and hidden tokens of log pi * reward [method section 6].

    Its fixed point has pi in proportion to error times the chance of being hidden, so it limits
    itself: no entropy term is needed. The value head is not trained.
    """

    def __init__(self, config: ReinforceConfig, policy: SamplerPolicy) -> None:
        super().__init__(config, policy)
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Metrics]:
        hidden = ~is_visible(rollout.visible_idx, rollout.log_prob.shape[1])
        gain = scored_sum(now.log_prob * rollout.reward, hidden, "mean")
        return -self.config.policy_coef * gain, {"surrogate": gain.item()}
