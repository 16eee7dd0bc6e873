"""`tats ckpt inspect`: what a checkpoint is and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tats_ray.checkpoints.foreign_files import Foreign, is_transformers_folder, read_foreign
from tats_ray.checkpoints.foreign_networks import some, would_load
from tats_ray.checkpoints.open import open_checkpoint, own_fit, resolve_path
from tats_ray.checkpoints.restore import Restored
from tats_ray.checkpoints.weight_files import one_line
from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import count_parameters


def inspect(path: str | Path) -> Iterator[tuple[str, str]]:
    """What a checkpoint is and holds, as (what, how much) lines."""
    path = resolve_path(path)
    if path.is_file() or is_transformers_folder(path):
        return _foreign_lines(read_foreign(path))
    return _own_lines(path, open_checkpoint(path, need="nothing"))


def _own_lines(path: Path, found: Restored) -> Iterator[tuple[str, str]]:
    model, grid, mae = found.config.model, found.grid, found.mae
    is_run = path.resolve() != found.folder.resolve()
    kind = "tats_ray" if found.head is None else "tats_ray, fine-tuned"
    yield "kind", f"{kind}, {'run folder' if is_run else 'one checkpoint'} ({found.folder.name})"
    yield "encoder", f"size {model.size}: width {mae.width}, depth {len(mae.encoder.blocks)}"
    yield "tokens", f"{counted(grid.tubelet, 'frame')} of {grid.patch} x {grid.patch} pixels"
    yield (
        "clip",
        f"{counted(grid.num_frames, 'frame')} of {grid.image_size} x {grid.image_size} pixels",
    )
    yield "positions", model.pos_embed
    yield "fit", str(own_fit(found))
    if found.head is not None:
        yield "head", counted(found.head.head.out_features, "class")
        encoder = [p for name, p in mae.encoder.named_parameters() if not name.startswith("norm.")]
        values = sum(p.numel() for p in encoder) + count_parameters(found.head)
        yield "tensors", _amount(len(encoder) + len(found.head.state_dict()), values)
        return
    width = mae.encoder_to_decoder.out_features
    yield "decoder", f"width {width}, depth {len(mae.decoder.blocks)}"
    sampler = found.config.sampler
    yield "sampler", f"{sampler.name}, mask ratio {sampler.mask_ratio}"
    if found.missing:
        yield "at random", ", ".join(found.missing)
    parts = [mae, found.policy] if is_learned(found.policy) else [mae]
    yield (
        "tensors",
        _amount(
            sum(len(part.state_dict()) for part in parts), sum(count_parameters(p) for p in parts)
        ),
    )


def _foreign_lines(found: Foreign) -> Iterator[tuple[str, str]]:
    yield "kind", found.kind
    shape = found.shape
    if shape is None:
        yield "names", ", ".join((*found.weights.ignored, *found.weights.mae)[:5])
    else:
        size = f"size {shape.size}: " if shape.size else ""
        yield "encoder", f"{size}width {shape.width}, depth {shape.depth}"
        yield "tokens", f"{counted(shape.tubelet, 'frame')} of {shape.patch} x {shape.patch} pixels"
        noted = [found.noted.get(n) for n in ("num_frames", "image_size", "input_size")]
        clip = ", ".join(one_line(value, most=20) for value in noted if value is not None)
        yield "clip", f"{clip} (frames, pixels; as noted)" if clip else "not stored"
        yield (
            "decoder",
            (
                f"width {shape.decoder_width}, depth {shape.decoder_depth}"
                if shape.decoder_width
                else "none"
            ),
        )
        yield "sampler", f"AdaMAE's, {shape.num_tokens} tokens" if shape.num_tokens else "none"
        yield "head", counted(shape.num_classes, "class") if shape.num_classes else "none"
        yield from _fit_lines(found)
    yield "tensors", _amount(found.num_tensors, found.num_parameters)


def _fit_lines(found: Foreign) -> Iterator[tuple[str, str]]:
    """What loading it would bring, or why it cannot be loaded as it is."""
    try:
        fit, said = would_load(found)
    except UsageError as error:
        yield "fit", f"none: {error}"
        return
    yield "fit", f"{fit}{said}"
    lacking = fit.reshaped + fit.missing
    if lacking:
        yield "at random", f"{len(lacking)}: {some(lacking)}"


def _amount(tensors: int, parameters: int) -> str:
    return f"{tensors}, {parameters:,} values"
