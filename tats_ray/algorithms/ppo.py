"""Proximal policy optimisation over token choices: the paper's algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.schema import AlgorithmConfig, require
from tats_ray.core.arrays import Bool, Float
from tats_ray.core.types import Evaluation, Metrics, Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import (
    AdvantageForm,
    Reduction,
    advantages,
    clipped_surrogate,
    scored_sum,
)
from tats_ray.ops.rewards import clip_return
from tats_ray.ops.selection import entropy, is_visible, plackett_luce_log_prob


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig(AlgorithmConfig):
    """PPO with the paper's coefficients [S tables 1 and 3]."""

    name: str = "ppo"
    policy_coef: float = 1e-4
    """c1: weight of the clipped surrogate [R][S]."""
    value_coef: float = 1e-4
    """c2: weight of the squared value error [R][S]."""
    entropy_coef: float = 1e-4
    """c3: weight of the entropy over all tokens [R][S]."""
    clip_eps: float = 0.2
    """Clip range of the ratio; PPO's own default, the paper's is not known [A11]."""
    update_steps: int = 1
    """Optimiser steps per update [R --update_steps_ppo]. With 1 the ratio is 1 throughout."""
    minibatch: Literal["entry", "all"] = "entry"
    """What one step takes: one stored entry, or all k at once [A10]."""
    scored: Literal["hidden", "visible", "joint"] = "hidden"
    """Whose log-probability enters the ratio: hidden tokens, visible tokens, or the draw as a
    whole (Plackett-Luce, one ratio per clip) [A2][A18]."""
    advantage: AdvantageForm = "raw"
    """raw is reward minus value [A7]; standardized over the batch; relative to the clip's mean,
    which limits itself where the others need the entropy term against collapse."""
    reduction: Reduction = "mean"
    """Over the scored tokens of a clip [A4]."""
    sharpness: float = 1.0
    """Power of relative advantages: how strongly a harder token is preferred."""

    def __post_init__(self) -> None:
        AlgorithmConfig.__post_init__(self)
        require(0 < self.clip_eps < 1, "algorithm.clip_eps", self.clip_eps, "inside (0, 1)")
        require(self.update_steps >= 1, "algorithm.update_steps", self.update_steps, "at least 1")
        require(self.sharpness > 0, "algorithm.sharpness", self.sharpness, "positive")

    def build(self, policy: SamplerPolicy) -> PPO:
        return PPO(self, policy)


class PPO(PolicyGradient):
    """L = -c1 J + c2 (V - R)^2 - c3 H, on one-step episodes [method section 7.6]."""

    def __init__(self, config: PPOConfig, policy: SamplerPolicy) -> None:
        super().__init__(
            config,
            policy,
            num_steps=config.update_steps,
            takes_all_entries=config.minibatch == "all",
        )
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Metrics]:
        config = self.config
        returns = clip_return(rollout.reward, rollout.visible_idx)
        log_ratio, reward, scored = self._scored(rollout, now, returns)
        advantage = advantages(reward, rollout.value, scored, config.advantage, config.sharpness)
        gain = scored_sum(
            clipped_surrogate(log_ratio, advantage, config.clip_eps), scored, config.reduction
        )
        value_loss = (now.value - returns).square().mean()
        spread = entropy(now.log_prob).mean()
        loss = config.value_coef * value_loss - config.policy_coef * gain
        loss = loss - config.entropy_coef * spread
        with torch.no_grad():
            far = (log_ratio.exp() - 1).abs() > config.clip_eps
            clipped = (far & scored).sum() / scored.sum()
        return loss, {
            "surrogate": gain.item(),
            "value_loss": value_loss.item(),
            "clip_fraction": clipped.item(),
        }

    def _scored(
        self, rollout: Rollout, now: Evaluation, returns: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """Log-ratios, rewards, and which of them count."""
        if self.config.scored == "joint":
            new = plackett_luce_log_prob(now.log_prob, rollout.visible_idx)
            old = plackett_luce_log_prob(rollout.log_prob, rollout.visible_idx)
            reward = returns[:, None]
            return (new - old)[:, None], reward, torch.ones_like(reward, dtype=torch.bool)
        visible = is_visible(rollout.visible_idx, rollout.log_prob.shape[1])
        scored = visible if self.config.scored == "visible" else ~visible
        return now.log_prob - rollout.log_prob, rollout.reward, scored
