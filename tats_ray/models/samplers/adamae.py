"""AdaMAE's sampler: plain attention over all tokens [method section 6]."""

from __future__ import annotations

from typing import Any

from torch import nn

from tats_ray.config.schema import SamplerConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.models.layers import transformer_block
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.learned import START_FIELDS, LearnedSampler, divided, start_of
from tats_ray.models.samplers.registry import POLICY_FIELDS, Sampler, learned_policy

FIELDS = ("num_blocks", "num_heads", *START_FIELDS, *POLICY_FIELDS)
"""What it heeds of `SamplerConfig`, and `tats` too."""
_NUM_HEADS = 8
"""AdaMAE's, whatever the encoder has [A5]."""


def adamae_sampler(
    width: int,
    grid: TokenGrid,
    *,
    num_heads: int = _NUM_HEADS,
    num_blocks: int = 1,
    **start: Any,
) -> LearnedSampler:
    """AdaMAE's sampler: plain attention over all tokens, LayerNorm eps 1e-5, no QKV bias.

    Deviation: no dropout (AdaMAE has 0.1), since it would make PPO's ratio noisy
    [method sections 6, 14]. `start` is what `LearnedSampler` takes.
    """
    blocks: list[nn.Module] = [
        transformer_block(width, num_heads, qkv_bias=False, eps=1e-5) for _ in range(num_blocks)
    ]
    return LearnedSampler(blocks, width, grid, **start)


def adamae_policy(
    config: SamplerConfig, grid: TokenGrid, width: int, num_heads: int, *, default: int = _NUM_HEADS
) -> SamplerPolicy:
    """Also what `tats` is without its trajectory attention, with other heads as the default."""
    network = adamae_sampler(
        width,
        grid,
        num_heads=divided(width, config.num_heads, default, num_heads),
        num_blocks=config.num_blocks,
        **start_of(config),
    )
    return learned_policy(network, width, config)


ADAMAE = Sampler(
    shows="drawn by probabilities that plain attention has learned",
    learns=True,
    heeds=FIELDS,
    has_published_names=True,
    build=adamae_policy,
)
