"""Checkpoints with random weights, in the official form and in ours; clips; and full disks."""

from __future__ import annotations

import errno
import resource
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.seeds import stream
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.learning.loop import Position
from tats_ray.learning.mae_learner import MAELearner
from tats_ray.learning.policy_learner import PolicyLearner
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import build_mae, build_policy, token_grid
from tats_ray.recipes.convert import convert
from tests.official import IMAGE_SIZE, NUM_FRAMES, PATCH, State, filled, save, videomae

ARGS = Namespace(num_frames=NUM_FRAMES, input_size=IMAGE_SIZE, sampling_rate=4, mask_ratio=0.75)
SIZES = {"num_frames": NUM_FRAMES, "image_size": IMAGE_SIZE}


def clips(count: int = 2) -> Tensor:
    shape = (count, 3, NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE)
    return torch.randint(256, shape, generator=stream(0, "clips"), dtype=torch.uint8)


def official(tmp_path: Path, shapes: object, name: str = "official.pth") -> tuple[Path, State]:
    state = filled(shapes())
    return save(tmp_path / name, state, args=ARGS), state


def own_run(folder: Path, *, pos_embed: str = "sincos_1d", sampler: str = "tats") -> Path:
    """A run folder of ours with random weights, at step 7."""
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
    if isinstance(policy, SamplerPolicy):
        state = PolicyLearner(policy, config.algorithm.build(policy), seed=5).state_dict()
    text = dump_config(config)
    found = checkpoints.Checkpoint(Position(step=7), learner.state_dict(), state, text)
    checkpoints.save(folder, found, keep_last=1)
    return folder


def converted(source: Path, out: Path, **options: object) -> list[str]:
    return list(convert(source, out, **options))


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@contextmanager
def disk_full_at(name: str) -> Iterator[None]:
    """Text files of this name find no room on the disk, as the last ones of a folder may."""
    write = Path.write_text

    def refuse(path: Path, text: str, **options: Any) -> int:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        yield


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """As on a disk where the first large file finds no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
