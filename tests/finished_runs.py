"""Folders of runs that are over: random weights at each checkpoint, and metrics to draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.types import Position
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import build_mae, build_policy, token_grid
from tats_ray.runs.run_record import record_end, record_start
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner
from tests.pages import records


def finished_run(
    folder: Path,
    videos: SyntheticSet,
    *,
    steps: Sequence[int] = (4, 8),
    seed: int = 0,
    image_size: int = 32,
    num_frames: int = 4,
    sampler: str = "tats",
) -> Path:
    """A run whose checkpoints differ as those of different seeds do."""
    folder.mkdir(parents=True)
    raw: dict[str, Any] = {
        "name": folder.name,
        "data": {
            "train_list": str(videos.train_list),
            "val_list": str(videos.val_list),
            "num_frames": num_frames,
            "image_size": image_size,
            "stride": 1,
        },
        "model": {"size": "tiny", "patch": 8, "normalize_targets": False},
        "sampler": {"name": sampler, "actor_init": "xavier", "mask_ratio": 0.75},
        "checkpoint": {"folder": str(folder.parent)},
        "optim": {"batch_size": 2},
    }
    config = parse_config(raw)
    record_start(folder, config, read_lists(config.data))
    grid = token_grid(config.data, config.model)
    for at, step in enumerate(steps):
        mae = build_mae(config.model, grid, seed=seed + at)
        learner = MAELearner(mae, config.optim, steps_per_epoch=4, total_steps=8, global_batch=2)
        learner.step = step
        policy, state = build_policy(config.sampler, config.model, grid, seed=seed + at), None
        if is_learned(policy):
            state = PolicyLearner(policy, config.algorithm.build(policy), seed=seed).state_dict()
        found = checkpoints.Checkpoint(
            Position(step=step, epoch=at + 1), learner.state_dict(), state, dump_config(config)
        )
        checkpoints.save(folder, found, keep_last=99)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records(steps)))
    record_end(folder, "finished")
    return folder
