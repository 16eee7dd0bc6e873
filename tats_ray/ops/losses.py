"""The terms of the policy objectives, one function each. All reductions are written out."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tats_ray.core.arrays import Bool, Float
from tats_ray.core.group import ALONE, Group, variance_over

Reduction = Literal["mean", "sum"]
AdvantageForm = Literal["raw", "standardized", "relative"]
GroupForm = Literal["standardized", "leave_one_out"]


def scored_sum(
    terms: Float[Tensor, "B N"], scored: Bool[Tensor, "B N"], reduction: Reduction
) -> Float[Tensor, ""]:
    """Sum or mean over the scored tokens of each clip, then mean over clips."""
    per_clip = torch.where(scored, terms, 0.0).sum(1)
    if reduction == "mean":
        per_clip = per_clip / scored.sum(1)
    return per_clip.mean()


def advantages(
    reward: Float[Tensor, "B N"],
    value: Float[Tensor, " B"],
    scored: Bool[Tensor, "B N"],
    form: AdvantageForm,
    group: Group = ALONE,
) -> Float[Tensor, "B N"]:
    """How much better than expected each scored token did; 0 elsewhere.

    `raw` is reward minus the clip's value (the paper family, method section 7.6).
    `standardized` shifts and scales that to mean 0, deviation 1 over all scored tokens, those of
    the group's other members too.
    `relative` is the reward over its clip's mean, without a baseline. Being positive, it limits
    itself: the gain is a cross-entropy towards the distribution in proportion to it, so no
    preference runs away. AdaMAE's loss has this form. With a baseline, tokens of negative
    advantage are pushed towards probability zero for ever.
    """
    if form == "relative":
        mean = torch.where(scored, reward, 0.0).sum(1, keepdim=True) / scored.sum(1, keepdim=True)
        return torch.where(scored, reward / mean.abs().clamp_min(1e-8), 0.0)
    advantage = reward - value[:, None]
    if form == "standardized":
        count = group.sum(scored.sum())
        total = group.sum(torch.where(scored, advantage, 0.0).sum())
        centred = advantage - total / count
        squares = group.sum(torch.where(scored, centred.square(), 0.0).sum())
        deviation = (squares / count).sqrt()
        advantage = centred / (deviation + 1e-8)
    return torch.where(scored, advantage, 0.0)


def sharpened(
    advantage: Float[Tensor, "B N"], old: Float[Tensor, "B N"], sharpness: float
) -> Float[Tensor, "B N"]:
    """Relative advantages whose fixed point is the expected reward to the power of `sharpness`.

    Each is weighted by (N pi_old)^(1 - 1/s). At the fixed point pi is in proportion to
    E[A] pi^(1 - 1/s), so to E[A]^s. Raising the reward itself would prefer E[A^s], whose noise
    grows with s: a token that was once very hard would outweigh one that is always hard.

    Args:
        old: log pi of the policy that drew, nats.
        sharpness: s; 1 leaves the advantages alone.
    """
    return advantage * ((old + math.log(old.shape[1])) * (1 - 1 / sharpness)).exp()


def group_advantages(
    returns: Float[Tensor, " B"], group_size: int, form: GroupForm
) -> Float[Tensor, " B"]:
    """How much better each draw did than the other draws for the same clip; no critic is needed.

    `leave_one_out` compares with the mean of the others, which this draw had no part in: the
    gradient stays unbiased [Kool et al. 2019]. `standardized` compares with the mean of all and
    divides by the group's deviation, so that every clip counts alike, however much its returns
    differ [Shao et al. 2024].

    Args:
        returns: of draws in consecutive groups of `group_size`, at least 2.
    """
    groups = returns.view(-1, group_size)
    better = groups - groups.mean(1, keepdim=True)
    if form == "leave_one_out":
        # r - (sum - r) / (G - 1) = (r - mean) G / (G - 1)
        return (better * (group_size / (group_size - 1))).flatten()
    # Where all draws earned the same, rounding must not be blown up to a preference.
    return (better / (groups.std(1, correction=0, keepdim=True) + 1e-6)).flatten()


def clipped_surrogate(
    log_ratio: Float[Tensor, "B N"], advantage: Float[Tensor, "B N"], clip_eps: float
) -> Float[Tensor, "B N"]:
    """PPO's pessimistic gain per token (to be maximised).

    Args:
        log_ratio: log pi_new - log pi_old, nats. Clamped to +-20 before exp, far outside any
            clip range, so that one runaway token cannot make the sum infinite.

    Source: Schulman et al. (2017), equation 7.
    """
    ratio = log_ratio.clamp(-20.0, 20.0).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_eps, 1 + clip_eps) * advantage)


def approx_kl(log_ratio: Float[Tensor, "B N"], old: Float[Tensor, "B N"]) -> Float[Tensor, ""]:
    """KL(old || new) over the tokens of a clip, exact, nats, mean over clips."""
    return -(old.exp() * log_ratio).sum(1).mean()


def clip_fraction(
    log_ratio: Float[Tensor, "B N"], scored: Bool[Tensor, "B N"], clip_eps: float
) -> Float[Tensor, ""]:
    """Share of the scored ratios that lie outside the clip range."""
    far = (log_ratio.exp() - 1).abs() > clip_eps
    return (far & scored).sum() / scored.sum()


def explained_variance(
    value: Float[Tensor, " B"], target: Float[Tensor, " B"], group: Group = ALONE
) -> Float[Tensor, ""]:
    """1 - Var(target - value) / Var(target); 1 is perfect, 0 no better than a constant."""
    spread = variance_over(group, target)
    left = variance_over(group, target - value)
    return torch.where(spread > 0, 1 - left / spread.clamp_min(1e-12), 0.0)
