"""How much rollouts weigh, on their way from learners or workers to the policy learner."""

from __future__ import annotations

from tats_ray.config.schema import RunConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.models.zoo import SIZES, num_visible


def buffer_bytes(config: RunConfig, grid: TokenGrid, num_workers: int) -> int:
    """The most that waiting rollouts hold: all ranks' of one update and of those under way."""
    return _update_bytes(config, grid, num_workers) * (1 + config.loop.max_staleness)


def store_bytes(config: RunConfig, grid: TokenGrid, num_workers: int) -> int:
    """The most that rollouts hold of an object store: those of the buffer, and one update more.

    The buffer's are views into the store, which cannot be spilled. An update that is taken leaves
    as a copy, while the buffer still holds it.
    """
    return buffer_bytes(config, grid, num_workers) + _update_bytes(config, grid, num_workers)


def _update_bytes(config: RunConfig, grid: TokenGrid, num_workers: int) -> int:
    clips = config.clips_per_rollout * num_workers * config.loop.mae_steps_per_update
    return clip_bytes(config, grid) * clips


def clip_bytes(config: RunConfig, grid: TokenGrid) -> int:
    """Of a clip in a rollout, with all its masks."""
    width = SIZES[config.model.size].width
    value_bytes = 2 if config.loop.precision == "bfloat16" else 4
    visible = num_visible(config.sampler, grid)
    row = grid.num_tokens * (width * value_bytes + 4 + 4) + 8 * visible + 4
    return row * config.algorithm.masks_per_clip
