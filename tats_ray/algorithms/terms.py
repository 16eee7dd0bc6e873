"""Building blocks of the losses: scored log-probabilities, a critic, groups, their settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.arrays import Bool, Float
from tats_ray.core.group import Group, mean_over
from tats_ray.core.ranges import AtLeastTwo, ShareBelowOne, require
from tats_ray.core.types import Evaluation, Rollout, Scalars
from tats_ray.ops.losses import AdvantageForm, Reduction, explained_variance
from tats_ray.ops.rewards import clip_return
from tats_ray.ops.selection import entropy, is_visible, plackett_luce_log_prob

_STEERING = 100.0
"""Of the entropy weight. At 30 the entropy settles .1 off its target, at 300 it swings."""
ScoredTokens = Literal["hidden", "visible", "joint"]


@dataclass(frozen=True, slots=True)
class Terms:
    """One column per scored thing: the N tokens, or the draw as a whole."""

    log_prob: Float[Tensor, "B S"]
    """Under the present weights, with gradients."""
    old_log_prob: Float[Tensor, "B S"]
    """Under the policy that drew."""
    reward: Float[Tensor, "B S"]
    is_scored: Bool[Tensor, "B S"]

    @property
    def log_ratio(self) -> Float[Tensor, "B S"]:
        return self.log_prob - self.old_log_prob


def scored_terms(rollout: Rollout, now: Evaluation, scored: ScoredTokens) -> Terms:
    """Whose log-probability enters a loss [A2][A18].

    `hidden` and `visible` score each such token by its own log-probability, `joint` the draw as a
    whole (Plackett-Luce), which is paid with the clip's return.
    """
    if scored == "joint":
        new = plackett_luce_log_prob(now.log_prob, rollout.visible_idx)
        old = plackett_luce_log_prob(rollout.log_prob, rollout.visible_idx)
        reward = clip_return(rollout.reward, rollout.visible_idx)[:, None]
        return Terms(new[:, None], old[:, None], reward, torch.ones_like(reward, dtype=torch.bool))
    visible = is_visible(rollout.visible_idx, rollout.log_prob.shape[1])
    chosen = visible if scored == "visible" else ~visible
    return Terms(now.log_prob, rollout.log_prob, rollout.reward, chosen)


def critic(rollout: Rollout, now: Evaluation, group: Group) -> tuple[Float[Tensor, ""], Scalars]:
    """Squared error of the value head, and how well it did before the draws."""
    returns = clip_return(rollout.reward, rollout.visible_idx)
    value_loss = (now.value - returns).square().mean()
    return value_loss, {
        "value_loss": value_loss.detach(),
        "value": rollout.value.mean(),
        "explained_variance": explained_variance(rollout.value, returns, group),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeredConfig(AlgorithmConfig):
    """What algorithms with an entropy term share."""

    entropy_coef: float = 1e-4
    """c3: weight of the entropy over all tokens [R][S]."""
    target_entropy: ShareBelowOne = 0.0
    """Entropy, as a share of log N, that c3 is steered to: entropy_coef then is the weight at the
    target, and 0.01 less of entropy multiplies it by e. 0 keeps the weight fixed."""

    def __post_init__(self) -> None:
        AlgorithmConfig.__post_init__(self)
        require(
            not self.target_entropy or self.entropy_coef > 0,
            "algorithm.entropy_coef",
            self.entropy_coef,
            "positive if algorithm.target_entropy is set, as the weight at the target",
        )


def entropy_bonus(config: SteeredConfig, now: Evaluation, group: Group) -> Float[Tensor, ""]:
    """c3 times the mean entropy; where there is a target, c3 depends on how far away that is.

    The weight has no memory, so a checkpoint needs none of it. A weight that adds up what is
    missing winds up instead: once tokens have lost their probability, entropy returns slowly.
    """
    spread = entropy(now.log_prob).mean()
    if not config.target_entropy:
        return config.entropy_coef * spread
    found = mean_over(group, spread.detach()) / math.log(now.log_prob.shape[1])
    missing = config.target_entropy - found
    return config.entropy_coef * (_STEERING * missing).clamp(-10, 10).exp() * spread


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorCriticConfig(SteeredConfig):
    """What PPO and A2C share: L = -c1 J + c2 (V - R)^2 - c3 H, with the paper's coefficients."""

    policy_coef: float = 1e-4
    """c1: weight of the policy term [R][S]."""
    value_coef: float = 1e-4
    """c2: weight of the squared value error [R][S]."""
    scored: ScoredTokens = "hidden"
    """What the log-probability covers: hidden tokens, visible tokens, or the draw as a whole
    (joint: Plackett-Luce, one ratio per clip) [A2][A18]."""
    advantage: AdvantageForm = "raw"
    """raw is reward minus value [A7]. standardized normalises it over the batch. relative divides
    by the clip's mean and limits itself; the others need the entropy term against collapse."""
    reduction: Reduction = "mean"
    """Reduction over the scored tokens of a clip [A4]."""

    def __post_init__(self) -> None:
        SteeredConfig.__post_init__(self)
        # All visible tokens of a clip have the same reward: relative to their mean, each earns 1.
        require(
            self.advantage != "relative" or self.scored == "hidden",
            "algorithm.advantage",
            self.advantage,
            f"raw or standardized if algorithm.scored is {self.scored}",
        )

    @property
    def default_reward(self) -> str:
        return "token_error" if self.scored == "hidden" else "negative_clip_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupConfig(SteeredConfig):
    """Several masks per clip, each compared with the clip's others instead of by a critic.

    The entropy term acts as a KL penalty towards a reference policy, here the uniform one.
    """

    group_size: AtLeastTwo = 4
    """Masks per clip and step. A batch holds batch_size / group_size distinct clips."""
    policy_coef: float = 1e-4
    """Weight of the policy term."""
    scored: Literal["joint", "visible"] = "joint"
    """What the log-probability covers: the whole draw (Plackett-Luce), or each visible token."""

    @property
    def default_reward(self) -> str:
        return "negative_clip_error"

    @property
    def masks_per_clip(self) -> int:
        return self.group_size


def group_spread(rollout: Rollout) -> Scalars:
    """How much the returns of one clip's masks differ: all that a group can learn from."""
    returns = clip_return(rollout.reward, rollout.visible_idx)
    groups = returns.view(-1, rollout.masks_per_clip)
    return {"group_spread": groups.std(1, correction=0).mean()}
