"""`tats export hf`: a checkpoint as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path

from tats_ray.learning.huggingface import Export, write_folder
from tats_ray.learning.weight_files import refuse_existing
from tats_ray.models.policy import SamplerPolicy
from tats_ray.recipes.adopt import open_checkpoint, require


def export_hf(
    source: str | Path, out: str | Path, *, num_frames: int = 0, image_size: int = 0
) -> Path:
    """Write a folder that transformers loads: a classifier where there is a head.

    Raises:
        CheckpointError: for a checkpoint that lacks a part.
        UsageError: for positions that transformers does not have.
    """
    out = Path(out)
    refuse_existing(out)
    found = open_checkpoint(source, need="nothing", num_frames=num_frames, image_size=image_size)
    require(found, "encoder" if found.head else "autoencoder")
    is_learned = isinstance(found.policy, SamplerPolicy)
    write_folder(
        out,
        Export(
            model=found.config.model,
            grid=found.grid,
            mae=found.mae.state_dict(),
            head=found.head.state_dict() if found.head else None,
            policy=found.policy.state_dict() if isinstance(found.policy, SamplerPolicy) else None,
            sampler=found.config.sampler if is_learned else None,
            origin=found.origin,
        ),
    )
    return out
