"""Open any checkpoint: our own, other projects' files, folders of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tats_ray.checkpoints.fitting import ENOUGH, WeightFit
from tats_ray.checkpoints.folders import BEST, LATEST, STATE_FILE, find
from tats_ray.checkpoints.foreign_files import is_transformers_folder
from tats_ray.checkpoints.foreign_networks import adopt, chosen, some
from tats_ray.checkpoints.restore import Restored, restore
from tats_ray.config.encoder_flags import AS_IT_SAYS, ClipSize
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.core.words import counted

Need = Literal["autoencoder", "encoder", "nothing"]
ORIGIN_FILE = "origin.json"
"""Beside a converted checkpoint: where it comes from, and what it lacked."""


def open_checkpoint(
    path: str | Path,
    *,
    need: Need = "autoencoder",
    clip: ClipSize = AS_IT_SAYS,
    config: RunConfig | None = None,
) -> Restored:
    """Networks of ours with the weights of a checkpoint of anyone's.

    Args:
        need: what must be there, to 95 % of its tensors.
        clip: its size, where the file does not say.
        config: the model that the weights must fit; default: the one that they are of.

    Raises:
        CheckpointError: for what cannot be read, is of another model, or lacks what is needed.
        UsageError: for clip sizes that a checkpoint does not have.
    """
    path = resolve_path(path)
    if config is not None and (clip.num_frames or clip.image_size):
        raise UsageError(
            "--config already sets frames and pixels of a clip; leave out the other two flags"
        )
    if path.is_file() or is_transformers_folder(path):
        return require(adopt(path, clip, config), need)
    found = restore(path)
    if config is not None:
        raise UsageError(f"{path} has its own settings; leave out --config")
    chosen(path, "num_frames", clip.num_frames, found.grid.num_frames)
    chosen(path, "image_size", clip.image_size, found.grid.image_size)
    return require(replace(found, missing=found.missing or _lacked(found.folder)), need)


def resolve_path(path: str | Path) -> Path:
    """A file of a checkpoint of ours stands for the checkpoint, whose config.yaml it needs.

    Raises:
        CheckpointError: when there is no looking at it.
    """
    path = Path(path)
    try:
        if path.name in (LATEST, BEST) and path.is_file():
            return find(path)
        return path.parent if path.is_file() and (path.parent / STATE_FILE).is_file() else path
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def require(found: Restored, need: Need, *, way_out: str = "use a complete checkpoint") -> Restored:
    """Refuse networks that lack more than 5 % of the tensors that are needed.

    Raises:
        CheckpointError: with counts and names.
    """
    if need == "nothing":
        return found
    names = _part(found, need, tuple(found.mae.state_dict()))
    lacking = _part(found, need, found.missing)
    if len(names) - len(lacking) >= ENOUGH * len(names):
        return found
    if need == "autoencoder" and all(name.startswith(_NOT_ENCODER) for name in lacking):
        raise CheckpointError(
            f"{found.origin}: it has no decoder, which masks and reconstructions need "
            f"(tats_ray.load encodes clips without one); {way_out}"
        )
    raise CheckpointError(
        f"{found.origin}: less than {ENOUGH:.0%} of its {need} fits; "
        f"{counted(len(lacking), 'tensor')} without a match ({some(lacking)}); {way_out}"
    )


_NOT_ENCODER = ("decoder.", "encoder_to_decoder.", "mask_token", "encoder.norm.")


def _part(found: Restored, need: Need, names: Sequence[str]) -> list[str]:
    """Those of the tensors that are needed."""
    part = "encoder." if need == "encoder" else ""
    # A fine-tuned encoder ends with its last block; its head brings the norm.
    left_out = "encoder.norm." if found.head is not None else "no tensor has this name"
    return [name for name in names if name.startswith(part) and left_out not in name]


def own_fit(found: Restored) -> WeightFit:
    """How much of a checkpoint of ours was loaded, of what it is a checkpoint of."""
    need: Need = "autoencoder" if found.head is None else "encoder"
    lacking = _part(found, need, found.missing)
    total = len(_part(found, need, tuple(found.mae.state_dict())))
    total += 0 if found.head is None else len(found.head.state_dict())
    return WeightFit(total - len(lacking), total, 0, tuple(lacking))


def loaded_in_words(found: Restored) -> str:
    """Where weights come from, and how many of them; an adopted file says both already."""
    is_own = (found.folder / STATE_FILE).is_file()
    return f"{found.origin}: {own_fit(found)}" if is_own else found.origin


def _lacked(folder: Path) -> tuple[str, ...]:
    file = folder / ORIGIN_FILE
    if not file.is_file():
        return ()
    try:
        noted = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}; convert its source again") from error
    missing = noted.get("missing") if isinstance(noted, dict) else None
    if not isinstance(missing, list) or not all(isinstance(name, str) for name in missing):
        raise CheckpointError(f"{file} has no list `missing` of names; convert its source again")
    return tuple(missing)
