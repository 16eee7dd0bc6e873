"""Shows what truly moves: not for use, but an upper bound for samplers that find motion."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.types import Evaluation, Selection
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.registry import Sampler
from tats_ray.ops.selection import draw_visible, token_log_prob

_MOTION_FLOOR = 0.05
"""Weight of a still token; one that moves as a whole has 1 + this."""


class MotionOracle(FixedPolicy):
    """Draws tokens in proportion to the share of their pixels that move, plus a floor.

    True motion is no part of what a policy observes, so `with_motion` gives it for one batch.
    """

    def __init__(self, grid: TokenGrid, motion: Float[Tensor, "B N"] | None = None) -> None:
        super().__init__(grid)
        self.motion = motion

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        if self.motion is None:
            raise UsageError(
                "sampler.name oracle needs the true motion of every clip beside its video, as "
                "`tats data synth` writes it; choose another sampler"
            )
        log_prob = token_log_prob((self.motion.to(tokens.device) + _MOTION_FLOOR).log())
        return Evaluation(log_prob, torch.zeros(len(tokens), device=tokens.device))

    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        seen = self.evaluate(tokens)
        visible_idx = draw_visible(seen.log_prob, num_visible, generator=generator)
        return Selection(visible_idx, seen.log_prob, seen.value)


def with_motion(policy: MaskPolicy, motion: Float[Tensor, "B N"] | None) -> MaskPolicy:
    """The policy for clips that move like this: only the oracle is another one than before."""
    return MotionOracle(policy.grid, motion) if isinstance(policy, MotionOracle) else policy


ORACLE = Sampler(
    shows=(
        "drawn in proportion to true motion; needs `*.motion.npz` beside every video, as "
        "`tats data synth` writes"
    ),
    needs_motion=True,
    build=lambda config, grid, width, num_heads: MotionOracle(grid),
)
