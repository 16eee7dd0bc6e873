"""Whitened tokens, in which all directions have equal variance: samplers learn faster.

A learned tokenizer spends most of its variance on a few directions: in the demo, three of 128, a
patch's mean colour, hold 83 % of it. What tells motion is in the others, and a sampler that sees
them a hundred times smaller takes as many more steps to find them. Observations of a policy are
commonly shifted and scaled by running statistics; here the directions are turned apart as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float
from tats_ray.core.group import ALONE, Group, mean_over

_WINDOW = 20
"""Batches that the running statistics look back over, once they have seen as many."""
_FLOOR = 3e-4
"""Directions with less than this share of the variance are noise, and are not blown up."""


class Whitening(nn.Module):
    """Running mean and covariance of tokens, and the symmetric map (ZCA) that makes them white.

    The statistics are buffers, so they travel and are stored with the weights. Before the first
    `observe` tokens pass unchanged. Afterwards their mean is zero, their mean square one, and no
    two directions correlate, but for those under the floor.
    """

    mean: Tensor
    covariance: Tensor
    matrix: Tensor
    num_batches: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("covariance", torch.zeros(width, width))
        self.register_buffer("matrix", torch.eye(width))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.long))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        with torch.autocast(tokens.device.type, enabled=False):
            return (tokens.float() - self.mean) @ self.matrix

    @torch.no_grad()
    def observe(self, tokens: Float[Tensor, "B N D"], group: Group = ALONE) -> None:
        """Take a batch into the statistics: the mean over all so far, then over a window.

        Args:
            group: whose batch it is, this member's part being `tokens`.
        """
        rows = tokens.flatten(0, 1).double()
        share = 1 / (self.num_batches + 1).clamp_max(_WINDOW).double()
        centre = mean_over(group, rows.mean(0))
        spread = mean_over(group, (rows - centre).T @ (rows - centre) / len(rows))
        shift = centre - self.mean.double()
        # The covariance of a mixture: no difference of large numbers.
        between = share * (1 - share) * torch.outer(shift, shift)
        covariance = (1 - share) * self.covariance.double() + share * spread + between
        self.num_batches += 1
        self.mean.copy_(self.mean + share * shift)
        self.covariance.copy_(covariance)
        self.matrix.copy_(_inverse_root(covariance))


def _inverse_root(covariance: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """C^(-1/2), small directions held back, scaled to a mean square of 1 per channel."""
    variance, directions = torch.linalg.eigh(covariance)
    variance = variance.clamp_min(0.0)
    floor = (_FLOOR * variance.sum()).clamp_min(torch.finfo(torch.float32).tiny)
    gain = (variance + floor).rsqrt()
    seen = (variance * gain.square()).mean().clamp_min(torch.finfo(torch.float32).tiny)
    return directions @ torch.diag(gain * seen.rsqrt()) @ directions.T
