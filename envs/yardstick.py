"""One measure for all mask policies: the environment's fixed clips, scored by a frozen MAE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tats_ray.envs import TokenSelectionVectorEnv
from torch import Tensor

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.core.arrays import Float, Int
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.models.policy import FixedPolicy

_NUM_RANDOM = 16
"""Random masks per clip behind the difficulty of its tokens."""
_NUM_DRAWS = 4
NUM_FEATURES = 3


def observed(features: Float[Tensor, "B V"], num_tokens: int) -> Float[Tensor, "B N D"]:
    """The environment's flat features token by token, 0 for an average token."""
    return features.unflatten(1, (num_tokens, NUM_FEATURES)) * 4.0 - 2.0


@dataclass(frozen=True, slots=True)
class Measures:
    """One number per clip, means over draws."""

    hidden_error: Float[Tensor, " C"]
    """Mean error of hidden tokens."""
    reduction: Float[Tensor, " C"]
    """How much less that is than under random masks of the same clip."""
    picked_error: Float[Tensor, " C"]
    """Error, under random masks, of the tokens shown; in multiples of the clip's mean."""
    motion: Float[Tensor, " C"]
    """Share of moving pixels in the tokens shown, in multiples of the clip's."""


class Yardstick:
    """Measures policies on the first `num_clips` clips that the environments show.

    Args:
        num_visible: tokens that every policy shows.
    """

    def __init__(self, scorer: FrozenScorer, num_clips: int, num_visible: int) -> None:
        self.grid, self.num_clips, self.num_visible = scorer.grid, num_clips, num_visible
        self.env = TokenSelectionVectorEnv(
            num_clips,
            scorer=scorer,
            num_visible=num_visible,
            num_clips=num_clips,
            observation="features",
            arrays="torch",
            autoreset=False,
        )
        features, info = self._reset()
        self.tokens = observed(features, self.grid.num_tokens)
        self.motion: Tensor = info["token_motion"]
        self.difficulty, self.random_error = self._under_random_masks()

    def measure(self, policy: MaskPolicy) -> Measures:
        """The same draws for the same policy every time."""
        generator = stream(0, "yardstick", "draw")
        found = [self._one_draw(self._act(policy, generator)) for _ in range(_NUM_DRAWS)]
        return Measures(*torch.stack(found).mean(0))

    def _act(self, policy: MaskPolicy, generator: torch.Generator) -> Int[Tensor, "C K"]:
        return policy.act(self.tokens, self.num_visible, generator=generator).visible_idx

    def _one_draw(self, visible_idx: Int[Tensor, "C K"]) -> Float[Tensor, "4 C"]:
        hidden_error = self._hidden_error(self._errors(visible_idx))
        shown = [
            values.gather(1, visible_idx).mean(1) / values.mean(1)
            for values in (self.difficulty, self.motion)
        ]
        return torch.stack([hidden_error, self.random_error - hidden_error, *shown])

    def _hidden_error(self, errors: Float[Tensor, "C N"]) -> Float[Tensor, " C"]:
        return errors.sum(1) / (self.grid.num_tokens - self.num_visible)

    def _errors(self, visible_idx: Int[Tensor, "C K"]) -> Float[Tensor, "C N"]:
        self._reset()
        _, _, _, _, info = self.env.step(visible_idx)
        errors: Tensor = info["token_error"]
        return errors

    def _reset(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self.env.reset(options={"clip_idx": range(self.num_clips)})

    def _under_random_masks(self) -> tuple[Float[Tensor, "C N"], Float[Tensor, " C"]]:
        """Mean error of each token while hidden, and of each clip."""
        generator, uniform = stream(0, "yardstick", "random"), FixedPolicy(self.grid)
        total, times = torch.zeros_like(self.motion), torch.full_like(self.motion, _NUM_RANDOM)
        for _ in range(_NUM_RANDOM):
            visible_idx = self._act(uniform, generator)
            total += self._errors(visible_idx)
            times.scatter_add_(1, visible_idx, -torch.ones_like(total))
        return total / times.clamp(min=1.0), self._hidden_error(total) / _NUM_RANDOM
