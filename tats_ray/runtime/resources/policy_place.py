"""Whether the policy can learn where a run wants it to, asked before anything starts."""

from __future__ import annotations

import math

from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.runtime.resources.rollout_bytes import buffer_bytes, store_bytes
from tats_ray.training.algorithm_trial import check_together


def check_policy_place(config: RunConfig, grid: TokenGrid) -> int:
    """Refuse a place of the policy, or a number of policy learners, that cannot be had.

    Returns:
        Most bytes of rollouts that a shard of the buffer has in an object store, copies included.

    Raises:
        UsageError: with the number and the way out.
    """
    cluster, learns = config.cluster, find_sampler(config.sampler).learns
    if cluster.policy_place == "learner":
        _check_inside(config)
        if cluster.num_workers > 1 and learns:
            learners = f"{counted(cluster.num_workers, 'learner')} (cluster.num_workers)"
            check_together(config, grid, learners, "--cluster.policy_place actor")
        return 0
    if not learns:
        return 0
    if cluster.policy_learners > 1:
        _check_group(config)
        learners = f"{cluster.policy_learners} policy learners (cluster.policy_learners)"
        check_together(config, grid, learners, "--cluster.policy_learners 1")
    slots = math.ceil(cluster.num_workers / cluster.policy_learners)
    _check_buffer(config, buffer_bytes(config, grid, slots), slots)
    return store_bytes(config, grid, slots)


def _check_inside(config: RunConfig) -> None:
    cluster = config.cluster
    if cluster.policy_learners > 1:
        raise UsageError(
            f"cluster.policy_learners {cluster.policy_learners} are actors of their own, and with "
            "cluster.policy_place learner every MAE learner learns the policy; use "
            "--cluster.policy_learners 1 or --cluster.policy_place actor"
        )
    if cluster.policy_gpus or config.num_rollout_workers:
        raise UsageError(
            "cluster.policy_place learner needs MAE learners that make the rollouts themselves, on "
            f"devices of theirs: it cannot be combined with cluster.policy_gpus "
            f"{cluster.policy_gpus:g} and loop.source {config.loop.source}; use actor"
        )


def _check_group(config: RunConfig) -> None:
    """Each policy learner needs a part of every MAE step's rollouts, and there is one a slot."""
    cluster = config.cluster
    if cluster.policy_learners > cluster.num_workers:
        raise UsageError(
            f"cluster.policy_learners {cluster.policy_learners} cannot share the "
            f"{counted(cluster.num_workers, 'rollout')} of an MAE step, of which there is one for "
            f"each of cluster.num_workers; use --cluster.policy_learners {cluster.num_workers}"
        )


def _check_buffer(config: RunConfig, needed: int, slots: int) -> None:
    """An update waits for all its rollouts, so a buffer that is too small would never empty."""
    if needed > config.cluster.buffer_mb * 2**20:
        of_shard = " of a shard" * (config.cluster.policy_learners > 1)
        raise UsageError(
            f"cluster.buffer_mb {config.cluster.buffer_mb} cannot hold the rollouts{of_shard} of "
            f"{counted(config.loop.mae_steps_per_update, 'MAE step')} x "
            f"{counted(slots, 'learner')} x "
            f"{counted(1 + config.loop.max_staleness, 'update')}, {needed / 2**20:.0f} MB; "
            f"use --cluster.buffer_mb {math.ceil(needed / 2**20)} or lower loop.rollout_fraction"
        )
