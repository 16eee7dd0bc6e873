"""Each hidden token becomes likelier by the error that it turned out to have."""

from dataclasses import dataclass

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import advantages, scored_sum
from tats_ray.ops.selection import entropy, is_visible
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomAlgorithmConfig(AlgorithmConfig):
    """Fields are checked, and can be set as --algorithm.FIELD like all others."""

    name: str = "custom_algorithm:CustomAlgorithmConfig"
    policy_coef: float = 1.0
    """Weight of the policy term."""
    entropy_coef: float = 0.01
    """Weight of the entropy, which keeps the choice varied."""

    def build(self, policy: SamplerPolicy) -> "CustomAlgorithm":
        return CustomAlgorithm(self, policy)


class CustomAlgorithm(PolicyGradient):
    """The base has optimiser, walk over the memory, diagnostics and checkpoints."""

    def __init__(
        self,
        config: CustomAlgorithmConfig,
        policy: SamplerPolicy,
    ) -> None:
        super().__init__(config, policy)
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Tensor, Scalars]:
        """What to minimise on a batch of drawn masks, and scalars to log."""
        hidden = ~is_visible(rollout.visible_idx, rollout.log_prob.shape[1])
        advantage = advantages(rollout.reward, rollout.value, hidden, "relative")
        gain = scored_sum(now.log_prob * advantage, hidden, "mean")
        spread = entropy(now.log_prob).mean()
        loss = -self.config.policy_coef * gain - self.config.entropy_coef * spread
        return loss, {"surrogate": gain.detach()}


if __name__ == "__main__":
    from tats_ray.runs.demo import try_out

    # A short training through the whole Ray loop, on videos that it makes.
    chosen = {"name": CustomAlgorithmConfig().name, "lr": 1e-3}
    print(try_out({"algorithm": chosen}).report)
