"""From reconstruction error to reward.

Which sign seeks motion depends on which tokens the policy's log-probability is taken over.
Hidden tokens with a per-token reward need PLUS: a hidden token that was hard to reconstruct
becomes likelier to be shown. Visible tokens with a reward per clip need MINUS: a set of visible
tokens is good when the rest can be reconstructed from it [method section 7.6].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tats_ray.core.arrays import Float, Int
from tats_ray.ops.selection import is_visible

RewardFunction = Callable[
    [Float[Tensor, "B N"], Int[Tensor, "B K"]],
    Float[Tensor, "B N"],
]


def token_error(
    error: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, "B N"]:
    """Each hidden token earns its own error: AdaMAE's reward and this project's default."""
    return error


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


REWARDS: dict[str, RewardFunction] = {
    "token_error": token_error,
    "clip_error": clip_error,
    "negative_clip_error": negative_clip_error,
}


def clip_return(
    reward: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """The clip's return: its mean reward over hidden tokens [method section 7.5]."""
    hidden = ~is_visible(visible_idx, reward.shape[1])
    return torch.where(hidden, reward, 0.0).sum(1) / hidden.sum(1)
