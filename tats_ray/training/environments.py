"""Builds the environment that a configuration names."""

from __future__ import annotations

from typing import Any

import gymnasium

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.config.schema import RunConfig
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.pretrain_loop import Environment


def make_env(
    config: RunConfig, scorer: MAELearner | FrozenScorer, num_envs: int, num_visible: int
) -> Environment:
    """`env.id` with `num_envs` clips in a batch, judged by `scorer`."""
    env: Any = gymnasium.make_vec(
        config.env.id,
        num_envs=num_envs,
        scorer=scorer,
        grid=scorer.mae.grid,
        width=scorer.mae.width,
        num_visible=num_visible,
        reward=config.reward,
        arrays="torch",
    )
    return env
