"""Checkpoints of other projects: what a file is and what it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tats_ray.checkpoints.foreign_names import Named, Weights, from_official, from_transformers
from tats_ray.checkpoints.weight_files import WeightFile, read_weights
from tats_ray.core.errors import CheckpointError
from tats_ray.models.zoo import SIZES


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes that can be read from the tensors; None where they cannot."""

    width: int
    depth: int
    patch: int
    tubelet: int
    decoder_width: int | None
    decoder_depth: int | None
    num_tokens: int | None
    """From the sampler's positions; the fixed tables of the autoencoder are not stored."""
    num_classes: int | None

    @property
    def size(self) -> str | None:
        """Name of the size of this width, if it has one."""
        return next((name for name, size in SIZES.items() if size.width == self.width), None)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A checkpoint that is not ours."""

    path: Path
    kind: str
    weights: Named
    shape: Shape | None
    """None for what is no video transformer of this family."""
    noted: Mapping[str, Any]
    """Settings that lay with the weights: the script's arguments, or config.json."""
    num_tensors: int
    num_parameters: int


def is_transformers_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()


def read_foreign(path: str | Path) -> Foreign:
    """Read a weight file or a transformers folder, and name what it is.

    Raises:
        CheckpointError: for what cannot be read; a readable file of another model is `unknown`.
    """
    path = Path(path)
    if path.is_dir():
        if not is_transformers_folder(path):
            raise CheckpointError(
                f"{path} holds no checkpoint: neither a run of tats_ray, nor config.json with "
                "model.safetensors"
            )
        found = WeightFile(read_weights(path / "model.safetensors").tensors, args=_config(path))
    else:
        found = read_weights(path)
    is_hf = any("patch_embeddings.projection" in name for name in found.tensors)
    weights = (from_transformers if is_hf else from_official)(found.tensors)
    shape = _shape(weights)
    return Foreign(
        path=path,
        kind=_kind(found, weights, is_hf=is_hf) if shape else "unknown",
        weights=weights,
        shape=shape,
        noted=found.args,
        num_tensors=len(found.tensors),
        num_parameters=sum(value.numel() for value in found.tensors.values()),
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("model_type") != "videomae":
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise CheckpointError(f"{folder} is a model of type {kind!r}; only 'videomae' is supported")
    return config


def _shape(weights: Named) -> Shape | None:
    kernel = weights.mae.get("encoder.patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 5 or kernel.shape[3] != kernel.shape[4]:
        return None
    depth = _depth(weights.mae, "encoder")
    if not depth:
        return None
    return Shape(
        width=kernel.shape[0],
        depth=depth,
        patch=kernel.shape[3],
        tubelet=kernel.shape[2],
        decoder_width=_length(weights.mae, "encoder_to_decoder.weight", 0),
        decoder_depth=_depth(weights.mae, "decoder") or None,
        num_tokens=_length(weights.sampler, "sampler.pos_embed", 1),
        num_classes=_length(weights.head, "head.weight", 0),
    )


def _length(weights: Weights, name: str, axis: int) -> int | None:
    """Of one axis of a tensor, if there is such a tensor with such an axis."""
    tensor = weights.get(name)
    return None if tensor is None or tensor.ndim <= axis else tensor.shape[axis]


def _depth(names: Mapping[str, Tensor], stack: str) -> int:
    found = [re.match(rf"{stack}\.blocks\.(\d+)\.", name) for name in names]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _kind(found: WeightFile, weights: Named, *, is_hf: bool) -> str:
    """Name a model of this family by what it holds and by the arguments that lie with it."""
    has_decoder = "encoder_to_decoder.weight" in weights.mae
    part = "fine-tuned" if weights.head else "pre-training" if has_decoder else "encoder only"
    if is_hf:
        return f"Hugging Face VideoMAE, {part}"
    if {"traj_attention", "update_steps_ppo"} & found.args.keys():
        return f"TATS official, {part}"
    if weights.sampler:
        return f"AdaMAE, {part}"
    is_v2 = found.wrapper == "module" or "decoder_mask_ratio" in found.args
    if is_v2:
        return f"VideoMAEv2, {part}"
    return f"VideoMAE, {part}" if part != "encoder only" else "encoder only, VideoMAE's names"


def named_size(shape: Shape, source: str, heads: Sequence[int | None] = (None, None)) -> str:
    """The size that a shape is of, in all that a configuration cannot say otherwise.

    Args:
        heads: of encoder and decoder, where they are known.

    Raises:
        CheckpointError: naming the number that no size has.
    """
    if shape.size is None:
        known = ", ".join(f"{name} {size.width}" for name, size in SIZES.items())
        raise CheckpointError(f"{source} has width {shape.width}, which matches no size: {known}")
    size = SIZES[shape.size]
    for what, there, here in (
        ("decoder width", shape.decoder_width, size.decoder_width),
        ("number of heads", heads[0], size.num_heads),
        ("number of decoder heads", heads[1], size.decoder_num_heads),
    ):
        if there is not None and there != here:
            raise CheckpointError(f"{source} has {what} {there}; size {shape.size} has {here}")
    return shape.size
