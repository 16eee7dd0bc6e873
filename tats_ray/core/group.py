"""Several learners of one policy that act as one: what they must add up."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tats_ray.core.arrays import Float


@runtime_checkable
class Group(Protocol):
    """Learners that hold the same policy, each with rollouts of its own.

    All members make the same calls in the same order, and each gets the same result.
    """

    size: int
    """Number of members."""
    share: float
    """Of all clips, those that are this member's; the shares of all members add up to 1."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all members, element by element; carries no gradient."""


class Alone:
    """A learner that has all rollouts for itself: sums are what they were, to the bit."""

    size = 1
    share = 1.0

    def sum(self, values: Tensor) -> Tensor:
        return values


ALONE = Alone()


def mean_over(group: Group, values: Tensor) -> Tensor:
    """What a mean over this member's clips is over the clips of all."""
    return values if group.size == 1 else group.sum(values * group.share)


def variance_over(group: Group, values: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Of values of which every member has a part."""
    if group.size == 1:
        return values.var(correction=0)
    inside, mean = torch.var_mean(values, correction=0)
    return mean_over(group, inside + (mean - mean_over(group, mean)).square())
