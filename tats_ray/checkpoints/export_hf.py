"""`tats export hf`: a checkpoint as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path

from tats_ray.checkpoints.foreign_networks import some
from tats_ray.checkpoints.huggingface import (
    Export,
    is_exported,
    require_flat_positions,
    write_folder,
)
from tats_ray.checkpoints.open import loaded_in_words, open_checkpoint, require
from tats_ray.checkpoints.restore import Restored
from tats_ray.checkpoints.weight_files import refuse_existing
from tats_ray.config.encoder_flags import AS_IT_SAYS, ClipSize
from tats_ray.core.errors import CheckpointError
from tats_ray.core.words import counted
from tats_ray.models.policy import is_learned


def export_hf(source: str | Path, out: str | Path, *, clip: ClipSize = AS_IT_SAYS) -> Path:
    """Write a folder that transformers loads: a classifier where there is a head.

    Prints how much of the model the source brought, and what it did not.

    Raises:
        CheckpointError: for a checkpoint that lacks a part.
        UsageError: for positions that transformers does not have, or an unwritable place.
    """
    out = Path(out)
    refuse_existing(out)
    found = open_checkpoint(source, need="nothing", clip=clip)
    require(found, "encoder" if found.head else "autoencoder")
    require_flat_positions(found.config.model, found.origin)
    missing = tuple(name for name in found.missing if is_exported(name, found.head is not None))
    _require_output(found, missing)
    origin = loaded_in_words(found)
    print(origin)
    if missing:
        print(f"{counted(len(missing), 'tensor')} missing, random in the export: {some(missing)}")
    policy = found.policy if is_learned(found.policy) else None
    write_folder(
        out,
        Export(
            model=found.config.model,
            grid=found.grid,
            mae=found.mae.state_dict(),
            head=found.head.state_dict() if found.head else None,
            policy=policy.state_dict() if policy else None,
            sampler=found.config.sampler if policy else None,
            origin=origin,
            missing=missing,
        ),
    )
    return out


def _require_output(found: Restored, missing: tuple[str, ...]) -> None:
    """Within 5 % of the tensors, the layer that all predictions pass could be a random one."""
    lost = [name for name in missing if name.startswith("decoder.head.")]
    if lost:
        raise CheckpointError(
            f"{found.origin}: its output layer is missing ({some(lost)}), and every prediction "
            "of the export would be random; use a complete checkpoint"
        )
