"""Build our networks from checkpoints of other projects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tats_ray.checkpoints.fitting import (
    WeightFit,
    compare,
    fit,
    in_order,
    num_stored,
    require_fit,
    same_tokens,
)
from tats_ray.checkpoints.foreign_files import Foreign, Shape, named_size, read_foreign
from tats_ray.checkpoints.format import load_weights
from tats_ray.checkpoints.huggingface import SAMPLER_CONFIG, SAMPLER_WEIGHTS
from tats_ray.checkpoints.restore import Restored
from tats_ray.checkpoints.weight_files import read_weights
from tats_ray.config.encoder_flags import AS_IT_SAYS, ClipSize
from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.words import counted
from tats_ray.models.head import ClassifierHead
from tats_ray.models.policy import is_learned
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.models.zoo import SIZES, build_mae, build_policy, token_grid

_MOST = 8
"""The blocks that a file names may have this many times the values that it holds."""
_SMALL_TABLE = 2**25
"""Values of position tables that a file may ask for, however little it holds."""


def adopt(path: Path, clip: ClipSize, config: RunConfig | None) -> Restored:
    """A file or a folder of another project; see `open_checkpoint`."""
    found = read_foreign(path)
    config, grid = _settings(found, clip, config)
    mae = build_mae(config.model, grid, seed=config.seed)
    policy, left_over, said = _policy(found, config, grid)
    brought = fit(mae, found.weights.mae, ignored=_num_ignored(found) + left_over)
    return Restored(
        path,
        config,
        grid,
        mae.eval(),
        policy,
        head=_head(found),
        origin=f"{path.name}, {found.kind}: {brought}{said}",
        missing=brought.reshaped + brought.missing,
    )


def would_load(found: Foreign) -> tuple[WeightFit, str]:
    """What `adopt` would load, and its words about the sampler; fills no network.

    Raises:
        CheckpointError: for what `adopt` would refuse.
    """
    config, grid = _settings(found, AS_IT_SAYS, None)
    with torch.device("meta"):
        mae = build_mae(config.model, grid, seed=config.seed)
    _, left_over, said = _policy(found, config, grid)
    _head(found)
    return compare(mae, found.weights.mae, ignored=_num_ignored(found) + left_over), said


def _settings(
    found: Foreign, clip: ClipSize, config: RunConfig | None
) -> tuple[RunConfig, TokenGrid]:
    """What to build for a file, checked against what is in it before anything is."""
    path, shape = found.path, found.shape
    if shape is None:
        raise CheckpointError(
            f"{path} is not a VideoMAE-style model: its {found.num_tensors} tensors are named "
            f"{some(found.weights.ignored or tuple(found.weights.mae))}"
        )
    in_order(found.weights.mae, str(path))
    is_own = config is None
    config = config or _config(found, shape, clip)
    same_tokens(
        found.weights.mae,
        width=SIZES[config.model.size].width,
        patch=config.model.patch,
        tubelet=config.model.tubelet,
        source=str(path),
    )
    grid = token_grid(config.data, config.model)
    if is_own:
        _in_proportion(found, config, grid)
    return config, grid


def _in_proportion(found: Foreign, config: RunConfig, grid: TokenGrid) -> None:
    """Refuse sizes that a few names or numbers in a file claim, and its tensors do not bear out."""
    path, model, size = found.path, config.model, SIZES[config.model.size]
    weights = found.weights
    stored = num_stored({**weights.mae, **weights.sampler, **weights.head})
    depths = model.depth or size.depth, model.decoder_depth or size.decoder_depth
    # A block is 12 squares of its width: 4 of attention, 8 of the MLP.
    blocks = 12 * (depths[0] * size.width**2 + depths[1] * size.decoder_width**2)
    if blocks > _MOST * stored:
        raise CheckpointError(
            f"{path} names {counted(depths[0], 'block')} of width {size.width}, some {blocks:,} "
            f"values, and holds {stored:,}; use a complete checkpoint"
        )
    if grid.num_tokens * (size.width + size.decoder_width) > max(stored, _SMALL_TABLE):
        raise CheckpointError(
            f"{path}: {grid.num_frames} frames of {grid.image_size} pixels are {grid.num_tokens:,} "
            "tokens, whose positions alone are more than its weights; where its settings are "
            "wrong, save its state dict alone and give frames and pixels"
        )
    own = path / SAMPLER_WEIGHTS
    num_sampler = len(read_weights(own).tensors) if own.is_file() else 0
    if config.sampler.num_blocks > max(1, num_sampler):
        raise CheckpointError(
            f"{path / SAMPLER_CONFIG} says num_blocks {config.sampler.num_blocks}, and the sampler "
            f"beside it has {counted(num_sampler, 'tensor')}; export it again"
        )


def _num_ignored(found: Foreign) -> int:
    """Tensors that no network is for; half a head makes none."""
    has_head = found.shape is not None and found.shape.num_classes is not None
    return len(found.weights.ignored) + (0 if has_head else len(found.weights.head))


def _config(found: Foreign, shape: Shape, clip: ClipSize) -> RunConfig:
    """The configuration of a model as the file shows it, as far as it does."""
    noted = found.noted
    heads = [_whole(noted, f"{part}num_attention_heads") or None for part in ("", "decoder_")]
    path, frames = found.path, _whole(noted, "num_frames")
    pixels = _whole(noted, "image_size", "input_size")
    config = parse_config(
        {
            "name": path.stem,
            "data": {
                "num_frames": chosen(path, "num_frames", clip.num_frames, frames) or 16,
                "image_size": chosen(path, "image_size", clip.image_size, pixels) or 224,
                "stride": _whole(noted, "sampling_rate") or 2,
            },
            "model": {
                "size": named_size(shape, str(path), heads),
                "depth": shape.depth,
                "decoder_depth": shape.decoder_depth or 0,
                "patch": shape.patch,
                "tubelet": shape.tubelet,
                # Named by transformers and by the script, whose `type=bool` reads any word as True.
                "normalize_targets": noted.get("norm_pix_loss", noted.get("normlize_target"))
                is not False,
            },
            "sampler": _sampler(found),
        },
        source=str(path),
    )
    try:
        grid = token_grid(config.data, config.model)
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if shape.num_tokens not in (None, grid.num_tokens):
        raise CheckpointError(
            f"{path} has a sampler for {shape.num_tokens} tokens; {grid.num_frames} frames "
            f"of {grid.image_size} pixels give {grid.num_tokens}; give both as they were trained"
        )
    return config


def chosen(path: Path, name: str, asked: int, own: int) -> int:
    """What is asked for, else what the checkpoint says; 0 for neither.

    Raises:
        UsageError: when they differ.
    """
    if asked and own and asked != own:
        raise UsageError(f"{path} was trained with {name} {own}, not {asked}; leave it out")
    return asked or own


def _sampler(found: Foreign) -> dict[str, Any]:
    """Its own file says it, or its names do; without a sampler it is what VideoMAE trains with."""
    own = found.path / SAMPLER_CONFIG
    if own.is_file():
        try:
            return dict(json.loads(own.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{own} cannot be read: {error}") from None
    ratio = found.noted.get("mask_ratio")
    is_ratio = isinstance(ratio, float) and 0 < ratio < 1
    if found.weights.sampler:
        return {"name": "adamae", "mask_ratio": ratio if is_ratio else 0.95}
    return {"name": "tube", "mask_ratio": ratio if is_ratio else 0.9}


def _policy(found: Foreign, config: RunConfig, grid: TokenGrid) -> tuple[MaskPolicy, int, str]:
    """The policy, how many of the file's sampler tensors have no place, and words about it."""
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    own, theirs = found.path / SAMPLER_WEIGHTS, found.weights.sampler
    if not is_learned(policy):
        return policy, len(theirs), ""
    if own.is_file():
        load_weights(policy, read_weights(own).tensors, source=str(own))
        return policy, len(theirs), f"; with its {config.sampler.name} sampler"
    if theirs and find_sampler(config.sampler).has_published_names:
        brought = fit(policy, theirs, only="sampler.")
        require_fit(
            brought, source=f"{found.path}, its sampler", way_out="use a complete checkpoint"
        )
        part = f"sampler {brought.loaded}/{brought.total}, with a new value head"
        return policy, brought.ignored, f"; {part}"
    return policy, len(theirs), f"; the {config.sampler.name} sampler is new"


def _head(found: Foreign) -> ClassifierHead | None:
    shape = found.shape
    if shape is None or shape.num_classes is None:
        return None
    weight = found.weights.head["head.weight"]
    if not shape.num_classes or tuple(weight.shape[1:]) != (shape.width,):
        raise CheckpointError(
            f"{found.path}, its head: head.weight is {tuple(weight.shape)}, which is not classes "
            f"by width {shape.width}; only heads of fc_norm and head are supported"
        )
    head = ClassifierHead(shape.width, shape.num_classes)
    require_fit(
        fit(head, found.weights.head),
        source=f"{found.path}, its head",
        way_out="only heads of fc_norm and head are supported",
    )
    return head.eval()


def _whole(noted: Mapping[str, Any], *names: str) -> int:
    """The first of these settings that is a positive whole number; else 0."""
    values = (noted.get(name) for name in names)
    return next((v for v in values if type(v) is int and v > 0), 0)


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
