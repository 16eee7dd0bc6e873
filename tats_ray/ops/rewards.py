"""From reconstruction error to reward.

Which sign seeks motion depends on which tokens the policy's log-probability is taken over.
Hidden tokens with a per-token reward need PLUS: a hidden token that was hard to reconstruct
becomes likelier to be shown. Visible tokens with a reward per clip need MINUS: a set of visible
tokens is good when the rest can be reconstructed from it [method section 7.6].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tats_ray.core.arrays import Float, Int
from tats_ray.core.errors import UsageError, did_you_mean
from tats_ray.ops.selection import is_visible

Need = Literal["random_error", "motion"]


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward function, and its named arguments besides error and `visible_idx`."""

    function: Callable[..., Float[Tensor, "B N"]]
    needs: tuple[Need, ...] = ()

    def __call__(
        self, error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"], **given: Tensor
    ) -> Float[Tensor, "B N"]:
        return self.function(error, visible_idx, **{name: given[name] for name in self.needs})


def token_error(
    error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, "B N"]:
    """Each hidden token earns its own error: AdaMAE's reward and this project's default."""
    return error


def token_ease(
    error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, "B N"]:
    """Each hidden token earns how easy it was: m / (m + its error), m the clip's mean error.

    Scored on hidden tokens, it shows what is easy and so hides what is hard. It lies inside
    (0, 1], so `advantage: relative` limits itself as it does with `token_error`.
    """
    mean = clip_error(error, visible_idx).clamp_min(1e-12)
    return mean / (mean + error)


def clip_error(
    error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, "B N"]:
    """Every token of a clip earns the clip's mean error over its hidden tokens."""
    hidden = error.shape[1] - visible_idx.shape[1]
    return (error.sum(1, keepdim=True) / hidden).expand_as(error)


def negative_clip_error(
    error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, "B N"]:
    """Every token of a clip earns minus the clip's mean error."""
    return -clip_error(error, visible_idx)


def error_reduction(
    error: Float[Tensor, "B N"],
    visible_idx: Int[Tensor, "B K"],
    *,
    random_error: Float[Tensor, " B"],
) -> Float[Tensor, "B N"]:
    """Every token of a clip earns how much less the mean error is than under random masks.

    Args:
        random_error: the clip's mean error over hidden tokens when a random mask shows as many.
    """
    return random_error[:, None] - clip_error(error, visible_idx)


def motion_share(
    error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"], *, motion: Float[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """Every token of a clip earns the share of truly moving pixels in what is visible.

    Args:
        motion: the share of moving pixels in each token, 0 to 1.
    """
    return motion.gather(1, visible_idx).mean(1, keepdim=True).expand_as(error)


REWARDS: dict[str, Reward] = {
    "token_error": Reward(token_error),
    "token_ease": Reward(token_ease),
    "clip_error": Reward(clip_error),
    "negative_clip_error": Reward(negative_clip_error),
    "error_reduction": Reward(error_reduction, ("random_error",)),
    "motion_share": Reward(motion_share, ("motion",)),
}


PER_TOKEN = ("token_error", "token_ease")
"""Rewards that hidden tokens earn each by itself."""


def register_reward(name: str, function: Callable[..., Any], *needs: Need) -> None:
    """Make `function` known as `name`, in this process.

    Raises:
        UsageError: for a name that is taken.
    """
    if name in REWARDS:
        raise UsageError(f"reward {name!r} is registered already; choose another name")
    REWARDS[name] = Reward(function, needs)


def find_reward(name: str) -> Reward:
    """The reward of that name.

    Raises:
        UsageError: for an unknown name, with the nearest and all known ones.
    """
    if name not in REWARDS:
        hint = did_you_mean(name, REWARDS)
        raise UsageError(f"env.reward {name!r} is not known{hint}; known: {', '.join(REWARDS)}")
    return REWARDS[name]


def clip_return(
    reward: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """The clip's return: its mean reward over hidden tokens [method section 7.5]."""
    hidden = ~is_visible(visible_idx, reward.shape[1])
    return torch.where(hidden, reward, 0.0).sum(1) / hidden.sum(1)
