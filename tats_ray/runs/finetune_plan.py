"""What a fine-tuning run will do: computed and checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.finetune_schema import FinetuneConfig, token_grid_of
from tats_ray.config.paths import LISTS
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.core.words import counted
from tats_ray.data.clip_lists import Lists, cache_in_words, read_lists
from tats_ray.evaluation.encoder import left_at_random, named_at_random
from tats_ray.evaluation.labelled_lists import find_lists, read_labelled
from tats_ray.runs.pretrain_plan import steps_in_epoch
from tats_ray.runs.run_folder import run_folder
from tats_ray.runtime.resources.placement import Placement, place
from tats_ray.training.finetune_validation import measured
from tats_ray.training.rate_schedule import RateSchedule
from tats_ray.view.trackers import require_trackers


@dataclass(frozen=True)
class FinetunePlan:
    """A run's sizes, all derived from its configuration, its checkpoint and its lists."""

    config: FinetuneConfig
    """Resolved: nothing in it is left to the checkpoint or the lists."""
    source: Restored
    lists: Lists
    num_val: int
    steps_per_epoch: int
    placement: Placement
    notes: tuple[str, ...]
    rollout_bytes: int = 0
    """No rollouts are made."""

    @property
    def global_batch(self) -> int:
        return self.config.optim.batch_size * self.placement.num_workers

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.optim.epochs

    def start_weights(self) -> dict[str, Tensor]:
        """What the classifier takes from the checkpoint."""
        encoder = self.source.mae.encoder.state_dict()
        weights = {f"encoder.{n}": v for n, v in encoder.items() if not n.startswith("norm.")}
        if self.source.head is not None and not self.config.new_head:
            weights |= self.source.head.state_dict()
        return weights

    def schedule(self, epochs: int) -> RateSchedule:
        """The learning rate of a run of so many epochs, of the head."""
        optim, scale = self.config.optim, self.global_batch / 256
        return RateSchedule(
            optim.base_lr * scale,
            optim.min_lr * scale,
            optim.warmup_epochs,
            epochs,
            warmup_steps=round(optim.warmup_epochs * self.steps_per_epoch),
            total_steps=epochs * self.steps_per_epoch,
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """(what, how much) for a person to read."""
        config, optim, how = self.config, self.config.optim, self.config.augment
        scale, workers = self.global_batch / 256, self.placement.num_workers
        yield (
            "videos",
            f"{len(self.lists.train)} to train on, {self.num_val} to validate, "
            f"{counted(config.data.num_classes, 'class')}",
        )
        origin = self.source.origin
        if config.from_scratch:
            yield "encoder", f"from scratch, in the shape of {origin}"
        else:
            yield "encoder", f"{origin}{named_at_random(left_at_random(self.source))}"
        data, grid = config.data, token_grid_of(config)
        yield (
            "clips",
            f"{counted(data.num_frames, 'frame')} of {data.image_size} x {data.image_size} pixels, "
            f"every {counted(data.stride, 'frame')}, {data.sampling}: {grid.num_tokens} tokens",
        )
        yield (
            "batch",
            f"{counted(optim.batch_size, 'clip')} x {counted(workers, 'learner')} = "
            f"{self.global_batch}, from {counted(config.videos_per_step * workers, 'video')}",
        )
        yield (
            "learning rate",
            f"{optim.base_lr:g} x {self.global_batch}/256 = {optim.base_lr * scale:g}, cosine to "
            f"{optim.min_lr * scale:g}, warm-up {counted(optim.warmup_epochs, 'epoch')}, layer "
            "decay "
            f"{optim.layer_decay:g}",
        )
        yield (
            "augmentation",
            f"{how.rand_ops} operations of strength {how.rand_magnitude:g}, crops from "
            f"{how.min_area:.0%}, flip {how.flip:g}, erase {how.erase:g}, mixup {how.mixup:g}, "
            f"cutmix {how.cutmix:g}",
        )
        yield (
            "steps",
            f"{counted(optim.epochs, 'epoch')} x {self.steps_per_epoch} = {self.total_steps}",
        )
        yield (
            "learners",
            f"{workers} on {self.placement.request.learners.device} "
            f"({self.placement.threads_in_words})",
        )
        cache = filter(None, [cache_in_words(self.config.data)])
        for note in (*self.notes, *self.schedule(optim.epochs).notes(), *cache):
            yield "note", note


def make_finetune_plan(
    checkpoint: str | Path, data: str | Path | None, config: FinetuneConfig
) -> FinetunePlan:
    """Check everything that can be known before an actor starts.

    Raises:
        UsageError: for the first thing that would make the run fail.
    """
    run_folder(config)  # refuses a bad name
    require_trackers(config.log.trackers)
    if config.cluster.is_elastic:
        raise UsageError(
            f"cluster.min_workers {config.cluster.min_workers} works only in pre-training: "
            "fine-tuning keeps cluster.num_workers learners; use --cluster.min_workers 0"
        )
    placement = place(config)
    source = open_checkpoint(checkpoint, need="nothing" if config.from_scratch else "encoder")
    config, notes = _resolve(config, source, str(checkpoint))
    config, passed_over = _with_lists(config, data)
    if source.head is not None and not (config.from_scratch or config.new_head):
        _check_head(source, config)
    lists = read_lists(config.data)
    return FinetunePlan(
        config=config,
        source=source,
        lists=lists,
        num_val=len(measured(config, lists.val)),
        steps_per_epoch=steps_in_epoch(config, lists.train, config.videos_per_step),
        placement=placement,
        notes=(*notes, *passed_over),
    )


def _resolve(
    config: FinetuneConfig, source: Restored, path: str
) -> tuple[FinetuneConfig, tuple[str, ...]]:
    """Fill in what is left to the checkpoint; refuse what contradicts it."""
    there = source.config.model
    own: dict[str, Any] = {
        "size": there.size,
        "depth": len(source.mae.encoder.blocks),
        "tubelet": there.tubelet,
        "patch": there.patch,
        "pos_embed": there.pos_embed,
    }
    for name, value in own.items():
        asked = getattr(config.model, name)
        if asked and asked != value:
            raise CheckpointError(
                f"{path} has {name} {value}, but model.{name} is {asked}; leave it out, or use "
                "another checkpoint"
            )
    data, grid = config.data, source.grid
    data = replace(
        data,
        num_frames=data.num_frames or grid.num_frames,
        image_size=data.image_size or grid.image_size,
        stride=data.stride or source.config.data.stride,
    )
    config = replace(config, start=path, data=data, model=replace(config.model, **own))
    new = token_grid_of(config)
    if new == grid:
        return config, ()
    words = [f"{counted(g.num_frames, 'frame')} of {g.image_size} pixels" for g in (new, grid)]
    return config, (
        f"position table recomputed for {words[0]}, {new.num_tokens} tokens; the checkpoint has "
        f"{words[1]}, {grid.num_tokens} tokens",
    )


def _with_lists(
    config: FinetuneConfig, data: str | Path | None
) -> tuple[FinetuneConfig, tuple[str, ...]]:
    """With the lists of a folder, or else the configuration's own; and what there is to note."""
    own = config.data
    given = (own.train_list, own.val_list)
    train, val = given if data is None else ("", "")
    lists = find_lists(data, train or None, val or None, flags=(f"--{LISTS[0]}", f"--{LISTS[1]}"))
    found = read_labelled(*lists, root=own.root)
    if own.num_classes and own.num_classes < found.num_classes:
        raise UsageError(
            f"{lists[0]} has classes 0 to {found.num_classes - 1}, but data.num_classes is "
            f"{own.num_classes}; leave it out"
        )
    data_config = replace(
        own,
        train_list=str(lists[0]),
        val_list=str(lists[1]),
        num_classes=own.num_classes or found.num_classes,
    )
    others = [
        f"{name} {path}"
        for name, path, taken in zip(LISTS, given, lists, strict=True)
        if path and Path(path) != taken
    ]
    notes = (f"the lists of {data} are used; ignored: {', '.join(others)}",) if others else ()
    return replace(config, data=data_config), notes


def _check_head(source: Restored, config: FinetuneConfig) -> None:
    assert source.head is not None
    num_classes = source.head.head.out_features
    if num_classes != config.data.num_classes:
        raise CheckpointError(
            f"{source.origin}: its head has {counted(num_classes, 'class')}, but "
            f"{config.data.train_list} has {config.data.num_classes}; use --new-head to load only "
            "the encoder"
        )
