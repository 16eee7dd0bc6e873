"""The paper's sampler: trajectory attention [method sections 7.1, 7.2]."""

from __future__ import annotations

from typing import Any

from tats_ray.config.schema import SamplerConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.adamae import FIELDS, adamae_policy
from tats_ray.models.samplers.learned import LearnedSampler, divided, start_of
from tats_ray.models.samplers.registry import Sampler, learned_policy
from tats_ray.models.trajectory import TrajectoryBlock

_KEPT_ROWS = 20
"""Vectors of the width that an update keeps for each token, besides its trajectory."""


def kept_bytes(num_clips: int, width: int, grid: TokenGrid, num_blocks: int) -> int:
    """Memory of an update in float32 that keeps all trajectories, with their gradients."""
    return 4 * num_clips * num_blocks * grid.num_tokens * width * (_KEPT_ROWS + 3 * grid.time)


def tats_sampler(
    width: int,
    grid: TokenGrid,
    *,
    num_heads: int,
    num_blocks: int = 1,
    qkv_bias: bool = True,
    project_values: bool = True,
    recompute: bool = False,
    **start: Any,
) -> LearnedSampler:
    """The network: trajectory attention blocks; `start` is what `LearnedSampler` takes."""
    blocks = [
        TrajectoryBlock(
            width,
            num_heads,
            grid.time,
            qkv_bias=qkv_bias,
            project_values=project_values,
            recompute=recompute,
        )
        for _ in range(num_blocks)
    ]
    return LearnedSampler(list(blocks), width, grid, **start)


def _policy(config: SamplerConfig, grid: TokenGrid, width: int, num_heads: int) -> SamplerPolicy:
    if not config.trajectory_attention:
        return adamae_policy(config, grid, width, num_heads, default=num_heads)
    network = tats_sampler(
        width,
        grid,
        num_heads=divided(width, config.num_heads, num_heads, num_heads),
        num_blocks=config.num_blocks,
        qkv_bias=config.qkv_bias,
        project_values=config.project_values,
        recompute=config.recompute == "on",
        **start_of(config),
    )
    return learned_policy(network, width, config)


TATS = Sampler(
    shows="drawn by probabilities that trajectory attention has learned",
    learns=True,
    heeds=(*FIELDS, "trajectory_attention", "qkv_bias", "project_values", "recompute"),
    build=_policy,
)
