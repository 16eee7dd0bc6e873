"""`tats ckpt convert`: a checkpoint in another form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.foreign_files import is_transformers_folder
from tats_ray.checkpoints.foreign_names import to_official
from tats_ray.checkpoints.huggingface import require_flat_positions
from tats_ray.checkpoints.open import (
    ORIGIN_FILE,
    Need,
    loaded_in_words,
    open_checkpoint,
    require,
    resolve_path,
)
from tats_ray.checkpoints.restore import Restored
from tats_ray.checkpoints.weight_files import PICKLED, refuse_existing, write_weights, writing
from tats_ray.config.encoder_flags import AS_IT_SAYS, ClipSize
from tats_ray.config.load import dump_config, load_config
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import whole_folder
from tats_ray.core.types import Position
from tats_ray.core.words import counted
from tats_ray.models.policy import is_learned
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner

OFFICIAL_SUFFIXES = (*PICKLED, ".safetensors")


def convert(
    source: str | Path,
    out: str | Path,
    *,
    config: Path | None = None,
    allow_partial: bool = False,
    clip: ClipSize = AS_IT_SAYS,
) -> Iterator[str]:
    """Write a checkpoint in another form; yields what there is to say about it.

    `out` ending in `.pth` or `.safetensors` gets the official repositories' names, any other is a
    run folder of ours, at step 0.

    Args:
        config: the run that starts from these weights; default: the model that they are of.
        allow_partial: take a checkpoint that lacks more than 5 % of the autoencoder.
        clip: its size, where the file does not say.

    Raises:
        CheckpointError: for a checkpoint that cannot be read, or lacks a part.
        UsageError: for a place that cannot be written, or settings that say something else.
    """
    source, out = resolve_path(source), Path(out)
    refuse_existing(out)
    settings = load_config(config) if config else None
    found = open_checkpoint(source, need="nothing", clip=clip, config=settings)
    is_official = out.suffix in OFFICIAL_SUFFIXES
    if not allow_partial:
        need: Need = "encoder" if is_official and found.head else "autoencoder"
        require(found, need, way_out="use --allow-partial to convert it anyway")
    yield loaded_in_words(found)
    has_all = is_official and found.head is not None  # a classifier has no decoder
    if found.missing and not has_all:
        yield f"{counted(len(found.missing), 'tensor')} missing: {', '.join(found.missing)}"
    yield from _write_official(found, out) if is_official else _write_ours(found, source, out)
    yield str(out)


def _write_official(found: Restored, out: Path) -> Iterator[str]:
    require_flat_positions(found.config.model, found.origin)
    sampler = found.config.sampler
    is_adamae = (
        find_sampler(sampler).has_published_names
        and (sampler.num_blocks, sampler.temperature, sampler.uniform_share) == (1, 1.0, 0.0)
        and sampler.num_heads in (0, 8)
        and sampler.pos_embed == "learned"
    )
    policy = found.policy.state_dict() if is_learned(found.policy) else {}
    if policy and not is_adamae:
        yield f"left out the {sampler.name} sampler: the official format has AdaMAE's only"
    head = found.head.state_dict() if found.head else {}
    write_weights(out, to_official(found.mae.state_dict(), policy if is_adamae else {}, head))


def _write_ours(found: Restored, source: Path, out: Path) -> Iterator[str]:
    """A run at step 0, which `pretrain --resume` goes on from."""
    if not (source.is_file() or is_transformers_folder(source)):
        raise UsageError(
            f"{source} is already a run of tats_ray; end OUT in .pth for the official names"
        )
    config = replace(found.config, name=out.name)
    config = replace(config, checkpoint=replace(config.checkpoint, folder=str(out.parent)))
    policy = None
    if is_learned(found.policy):
        algorithm = config.algorithm.build(found.policy)
        policy = PolicyLearner(found.policy, algorithm, seed=config.seed).state_dict()
    else:
        yield f"it has no learned sampler: masks are {config.sampler.name} masks"
    if found.head is not None:
        yield "left out its head: the output is a pre-training run"
    # Schedules are made by the run; only the form of the state matters here.
    learner = MAELearner(found.mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    text = dump_config(config)
    state = checkpoints.Checkpoint(Position(), learner.state_dict(), policy, text)
    origin = {"origin": found.origin, "missing": list(found.missing)}
    with writing(out), whole_folder(out) as draft:
        folder = checkpoints.save(draft, state, keep_last=config.checkpoint.keep_last)
        (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=1) + "\n")
        (draft / "config.yaml").write_text(text)
