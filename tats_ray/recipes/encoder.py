"""A frozen encoder from a checkpoint: the one place where downstream commands open one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tats_ray.core.devices import find_device
from tats_ray.learning.features import FrozenEncoder
from tats_ray.models.zoo import build_mae
from tats_ray.recipes.adopt import open_checkpoint


def open_encoder(
    path: str | Path,
    *,
    device: str = "cpu",
    untrained_seed: int | None = None,
    num_frames: int = 0,
    image_size: int = 0,
    stride: int = 0,
) -> FrozenEncoder:
    """The encoder of a checkpoint of anyone's, or of the newest in a run folder.

    Args:
        device: where it runs.
        untrained_seed: a number gives freshly drawn weights in the same shape, the baseline that a
            trained encoder has to beat; they differ from those that the run started with.
        num_frames: of a clip, where the file does not say; default 16.
        image_size: of a clip, likewise; default 224.
        stride: video frames from one clip frame to the next; default: as it was trained, or 2.

    Raises:
        CheckpointError: for what is wrong with the checkpoint.
    """
    found = open_checkpoint(path, need="encoder", num_frames=num_frames, image_size=image_size)
    mae = found.mae
    if untrained_seed is not None:
        mae = build_mae(found.config.model, found.grid, seed=found.config.seed + 1 + untrained_seed)
    encoder = mae.encoder.eval().requires_grad_(False).to(device)
    data = found.config.data
    return FrozenEncoder(encoder, found.grid, replace(data, stride=stride or data.stride))


def folder_of_run(path: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    path = Path(path)
    if path.parent.name == "checkpoints":
        return path.parents[1]
    if path.name == "checkpoints":
        return path.parent
    return path if path.is_dir() else path.parent


def pick_device(name: str) -> str:
    """`auto` is the GPU where there is one.

    Raises:
        UsageError: for a device that is not here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(find_device(name))
