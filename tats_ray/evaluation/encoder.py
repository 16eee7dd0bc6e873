"""A frozen encoder from a checkpoint: the one place where downstream commands open one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tats_ray.checkpoints.foreign_networks import some
from tats_ray.checkpoints.open import open_checkpoint, resolve_path
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.core.devices import find_device
from tats_ray.evaluation.features import FrozenEncoder
from tats_ray.models.head import ClassifierHead
from tats_ray.models.zoo import build_mae


@dataclass(frozen=True)
class OpenedEncoder(FrozenEncoder):
    """A frozen encoder, with what is known of its checkpoint."""

    origin: str
    """What it is, in words; of a file of others, how much of it was taken."""
    at_random: tuple[str, ...]
    """Tensors of the encoder that it did not bring."""
    head: ClassifierHead | None
    """Of a fine-tuned one."""

    @property
    def words(self) -> str:
        return f"{self.origin}{named_at_random(self.at_random)}"

    def about(self) -> dict[str, Any]:
        """For protocols."""
        return {"origin": self.origin, "at_random": list(self.at_random)}


def open_encoder(
    path: str | Path, options: EncoderOptions, *, untrained_seed: int | None = None
) -> OpenedEncoder:
    """The encoder of a checkpoint of anyone's, or of the newest in a run folder.

    Args:
        options: its clips and its device; the others are for whoever computes features with it.
        untrained_seed: a number gives freshly drawn weights in the same shape, the baseline that a
            trained encoder has to beat; they differ from those that the run started with.

    Raises:
        CheckpointError: for what is wrong with the checkpoint.
        UsageError: for a device that is not here, or clips that the checkpoint does not have.
    """
    device = _device(options.device)
    found = open_checkpoint(path, need="encoder", clip=options)
    mae, origin, at_random = found.mae, found.origin, left_at_random(found)
    if untrained_seed is not None:
        origin, at_random = f"untrained, in the shape of {origin}", ()
        mae = build_mae(found.config.model, found.grid, seed=found.config.seed + 1 + untrained_seed)
    encoder = mae.encoder.eval().requires_grad_(False).to(device)
    data = found.config.data
    data = replace(data, stride=options.stride or data.stride)
    return OpenedEncoder(encoder, found.grid, data, origin, at_random, found.head)


def left_at_random(found: Restored) -> tuple[str, ...]:
    """Tensors of the encoder that a checkpoint did not bring; its last norm is never used here."""
    return tuple(
        name
        for name in found.missing
        if name.startswith("encoder.") and not name.startswith("encoder.norm.")
    )


def named_at_random(names: tuple[str, ...]) -> str:
    """To be added to the words about a checkpoint; empty where nothing stayed random."""
    return f"; {len(names)} at random ({some(names)})" if names else ""


def folder_of_run(path: str | Path) -> Path:
    """The folder of the run that a checkpoint, or a file of one, belongs to."""
    path = resolve_path(path)
    if path.parent.name == "checkpoints":
        return path.parents[1]
    if path.name == "checkpoints":
        return path.parent
    return path if path.is_dir() else path.parent


def _device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return find_device(name)
