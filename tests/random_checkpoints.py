"""Checkpoints with random weights, in the official form and in ours; and clips."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.seeds import stream
from tats_ray.core.types import Position
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import build_mae, build_policy, token_grid
from tats_ray.runs.convert import convert
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner
from tests.official import IMAGE_SIZE, NUM_FRAMES, PATCH, State, filled, save, videomae

ARGS = Namespace(num_frames=NUM_FRAMES, input_size=IMAGE_SIZE, sampling_rate=4, mask_ratio=0.75)
SIZES = {"num_frames": NUM_FRAMES, "image_size": IMAGE_SIZE}


def clips(count: int = 2) -> Tensor:
    shape = (count, 3, NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE)
    return torch.randint(256, shape, generator=stream(0, "clips"), dtype=torch.uint8)


def official(tmp_path: Path, shapes: object, name: str = "official.pth") -> tuple[Path, State]:
    state = filled(shapes())
    return save(tmp_path / name, state, args=ARGS), state


def own_run(
    folder: Path, *, pos_embed: str = "sincos_1d", sampler: str = "tats", step: int = 7
) -> Path:
    """A run folder of ours with random weights; a second step is a second checkpoint."""
    config = parse_config(
        {
            "name": folder.name,
            "data": SIZES,
            "model": {"size": "tiny", "patch": PATCH, "pos_embed": pos_embed},
            "sampler": {"name": sampler, "mask_ratio": 0.75, "actor_init": "xavier"},
        }
    )
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=5)
    mae.load_state_dict(filled(videomae(), "own"))
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    policy = build_policy(config.sampler, config.model, grid, seed=5)
    state = None
    if is_learned(policy):
        state = PolicyLearner(policy, config.algorithm.build(policy), seed=5).state_dict()
    text = dump_config(config)
    found = checkpoints.Checkpoint(Position(step=step), learner.state_dict(), state, text)
    checkpoints.save(folder, found, keep_last=2)
    return folder


def converted(source: Path, out: Path, **options: object) -> list[str]:
    return list(convert(source, out, **options))


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
