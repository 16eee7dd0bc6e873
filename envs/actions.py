"""Two forms of actions that say which tokens to show. Invalid ones are refused."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from tats_ray.core.arrays import Bool, Int
from tats_ray.core.errors import UsageError
from tats_ray.core.late import expect
from tats_ray.core.seeds import stream


@runtime_checkable
class ActionReader(Protocol):
    """Turns the actions of a step into token indices."""

    @property
    def space(self) -> Space[Any]:
        """Of one environment."""

    def read(self, actions: Any, shown: Bool[Tensor, "B N"]) -> Int[Tensor, "B k"]:
        """Distinct indices of tokens that are not `shown` yet.

        Raises:
            UsageError: for anything that does not name them.
        """


class Indices:
    """The exact tokens, `B k` whole numbers, in any order."""

    def __init__(self, num_tokens: int, count: int) -> None:
        self.num_tokens, self.count = num_tokens, count
        self.space = spaces.MultiDiscrete([num_tokens] * count)

    def read(self, actions: Any, shown: Bool[Tensor, "B N"]) -> Int[Tensor, "B k"]:
        idx = torch.as_tensor(actions)
        _check_shape(idx, (len(shown), self.count), "so many token indices per clip")
        outside = UsageError(f"action must hold whole token indices in [0, {self.num_tokens})")
        if idx.is_floating_point():
            raise outside
        ordered = idx.sort(dim=1).values
        is_inside = (ordered[:, 0].amin() >= 0) & (ordered[:, -1].amax() < self.num_tokens)
        expect(is_inside, lambda: outside)
        expect(
            (ordered[:, 1:] != ordered[:, :-1]).all(),
            lambda: UsageError("action names a token twice; each clip needs distinct tokens"),
        )
        return idx.long().clamp(0, self.num_tokens - 1)  # harmless, until the check is looked at


class NewIndices(Indices):
    """Indices in an episode of several rounds: what is visible already cannot be chosen again."""

    def read(self, actions: Any, shown: Bool[Tensor, "B N"]) -> Int[Tensor, "B k"]:
        idx = super().read(actions, shown)
        again = shown.gather(1, idx.to(shown.device))
        if again.any():
            row, column = again.nonzero()[0].tolist()
            raise UsageError(
                f"action names token {int(idx[row, column])} of clip {row}, which is visible "
                "already; choose among the hidden ones"
            )
        return idx


class Scores:
    """One number per token; the `count` highest of those still hidden are shown.

    Only their order matters. Ties go by a fixed scrambled order of the tokens: Gaussian policies
    that are clipped to the box tie often, and the lowest index would always be the earliest time.
    """

    def __init__(self, num_tokens: int, count: int) -> None:
        self.num_tokens, self.count = num_tokens, count
        self.space = spaces.Box(-1.0, 1.0, (num_tokens,), np.float32)
        self._order = torch.randperm(num_tokens, generator=stream(0, "ties"))

    def read(self, actions: Any, shown: Bool[Tensor, "B N"]) -> Int[Tensor, "B k"]:
        scores = torch.as_tensor(actions)
        _check_shape(scores, tuple(shown.shape), "one score per token")
        if not torch.isfinite(scores).all():
            row = int((~torch.isfinite(scores)).any(1).nonzero()[0])
            raise UsageError(f"action has NaN or infinite scores for clip {row}; scores are finite")
        order = self._order.to(scores.device)
        scores = scores if scores.is_floating_point() else scores.double()
        free = scores.masked_fill(shown.to(scores.device), -torch.inf)[:, order]
        ranked = free.argsort(dim=1, descending=True, stable=True)
        return order[ranked[:, : self.count]]


def _check_shape(action: Tensor, expected: tuple[int, ...], meaning: str) -> None:
    if tuple(action.shape) != expected:
        raise UsageError(f"action has shape {tuple(action.shape)}, expected {expected}: {meaning}")
