"""`tats finetune`: from a pre-trained encoder and labelled videos to a classifier."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tats_ray.config.differences import deciding
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import dump_config, parse_finetune, read_yaml
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.learning.finetune_build import token_grid_of
from tats_ray.learning.finetune_state import START_FILE, is_fine_tuned, read_labelled_lists
from tats_ray.recipes.adopt import open_checkpoint
from tats_ray.recipes.labelled import find_lists, read_labelled
from tats_ray.recipes.pretrain import only_run_in
from tats_ray.recipes.restore import Restored
from tats_ray.runtime import launch
from tats_ray.runtime.finetune import run_finetune
from tats_ray.view.board import ViewPlan, make_view
from tats_ray.view.tracking import RunFiles, read_metrics


@dataclass(frozen=True)
class FinetunePlan:
    """A run's sizes, all derived from its configuration, its checkpoint and its lists."""

    config: FinetuneConfig
    """Resolved: nothing in it is left to the checkpoint or the lists."""
    source: Restored
    num_train: int
    num_val: int
    steps_per_epoch: int
    placement: launch.Placement
    notes: tuple[str, ...]

    @property
    def global_batch(self) -> int:
        return self.config.optim.batch_size * self.placement.num_workers

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.optim.epochs

    def lines(self) -> Iterator[tuple[str, str]]:
        """(what, how much) for a person to read."""
        config, optim, how = self.config, self.config.optim, self.config.augment
        scale, workers = self.global_batch / 256, self.placement.num_workers
        yield (
            "videos",
            f"{self.num_train} to train on, {self.num_val} to validate, "
            f"{config.data.num_classes} classes",
        )
        start = "from scratch, in the shape of " if config.from_scratch else ""
        yield "encoder", f"{start}{self.source.origin}"
        data, grid = config.data, token_grid_of(config)
        yield (
            "clips",
            f"{data.num_frames} frames of {data.image_size} x {data.image_size} pixels, every "
            f"{data.stride} frames, {data.sampling}: {grid.num_tokens} tokens",
        )
        yield (
            "batch",
            f"{optim.batch_size} clips x {workers} learner{'s' * (workers > 1)} = "
            f"{self.global_batch}, of {config.videos_per_step * workers} videos",
        )
        yield (
            "learning rate",
            f"{optim.base_lr:g} x {self.global_batch}/256 = {optim.base_lr * scale:g}, cosine to "
            f"{optim.min_lr * scale:g}, warm-up {optim.warmup_epochs:g} epochs, layer decay "
            f"{optim.layer_decay:g}",
        )
        yield (
            "augmentation",
            f"{how.rand_ops} operations of strength {how.rand_magnitude:g}, crops from "
            f"{how.min_area:.0%}, flip {how.flip:g}, erase {how.erase:g}, mixup {how.mixup:g}, "
            f"cutmix {how.cutmix:g}",
        )
        yield "steps", f"{optim.epochs} epochs x {self.steps_per_epoch} = {self.total_steps}"
        yield (
            "learners",
            f"{workers} on {self.placement.device} ({self.placement.threads} threads each)",
        )
        for note in self.notes:
            yield "note", note


@dataclass(frozen=True)
class FinetuneResult:
    """Where a run lies and how it ended."""

    folder: Path
    outcome: launch.Outcome
    top1: float | None
    """Of the last measurement, 0 to 1; None without a validation list."""


def finetune(
    checkpoint: str | Path,
    data: str | Path | None,
    config: FinetuneConfig,
    *,
    resume: bool = False,
    new_head: bool = False,
) -> FinetuneResult:
    """Fine-tune until the last epoch, or until asked to stop.

    Args:
        checkpoint: anything that `tats ckpt inspect` knows.
        data: folder with train.csv and val.csv; None where `data.train_list` names them.
        resume: continue the run of this name; without it, an existing run is left alone.
        new_head: leave out the checkpoint's own classifier.

    Raises:
        UsageError: for anything wrong that can be known before an actor starts.
        RunFailedError: for what went wrong later, with its first cause.
    """
    plan = make_finetune_plan(checkpoint, data, config, new_head=new_head)
    config = plan.config
    folder = Path(config.checkpoint.folder) / config.name
    _check_folder(config, folder, resume=resume)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(folder):
        (folder / "config.yaml").write_text(dump_config(config))
        _write_start(plan, folder, new_head=new_head)
        for what, how_much in plan.lines():
            print(f"{what:>14}  {how_much}")
        print(f"{'run folder':>14}  {folder}", flush=True)
        outcome = _train(plan, folder)
    if not outcome.is_finished:
        print(f"{outcome.message}; continue with:\n  {_resume_command(config, folder)}", flush=True)
        return FinetuneResult(folder, outcome, None)
    measured = [r["val/top1"] for r in read_metrics(folder) if "val/top1" in r]
    if measured:
        print(f"{'result':>14}  top-1 {measured[-1]:.1%} of single clips; all views with:")
        where = Path(config.data.val_list).parent
        print(f"  tats test {shlex.quote(str(folder))} {shlex.quote(str(where))}", flush=True)
    return FinetuneResult(folder, outcome, measured[-1] if measured else None)


def make_finetune_plan(
    checkpoint: str | Path,
    data: str | Path | None,
    config: FinetuneConfig,
    *,
    new_head: bool = False,
) -> FinetunePlan:
    """Check everything that can be known before an actor starts.

    Raises:
        UsageError: for the first thing that would make the run fail.
    """
    if not config.name or "/" in config.name:
        raise UsageError(f"name {config.name!r} is no folder name; use --name NAME")
    placement = launch.place(config)
    source = open_checkpoint(checkpoint, need="nothing" if config.from_scratch else "encoder")
    config, notes = _resolve(config, source, str(checkpoint))
    config = _with_lists(config, data)
    if source.head is not None and not (config.from_scratch or new_head):
        _check_head(source, config)
    lists = read_labelled_lists(config)
    workers = config.cluster.num_workers
    steps = len(lists.train) // (config.videos_per_step * workers)
    if not steps:
        raise UsageError(
            f"{config.data.train_list} has {len(lists.train)} videos, fewer than one batch of "
            f"{config.videos_per_step * workers} ({config.videos_per_step} x {workers} learners); "
            "lower optim.batch_size"
        )
    return FinetunePlan(
        config=config,
        source=source,
        num_train=len(lists.train),
        num_val=len(lists.val),
        steps_per_epoch=steps,
        placement=placement,
        notes=notes,
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
                f"{path} has {name} {value}, model.{name} is {asked}; leave it out, or take a "
                "checkpoint that was trained so"
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
    words = [f"{g.num_frames} frames of {g.image_size} pixels" for g in (new, grid)]
    return config, (
        f"position table re-made for {words[0]}, {new.num_tokens} tokens; the checkpoint's clips "
        f"have {words[1]}, {grid.num_tokens} tokens",
    )


def _with_lists(config: FinetuneConfig, data: str | Path | None) -> FinetuneConfig:
    own = config.data
    train, val = own.train_list or None, own.val_list or None
    # A folder that is named stands before the lists of a preset.
    lists = find_lists(data, None if data else train, None if data else val)
    found = read_labelled(*lists)
    if own.num_classes and own.num_classes < found.num_classes:
        raise UsageError(
            f"{lists[0]} has classes 0 to {found.num_classes - 1}, data.num_classes is "
            f"{own.num_classes}; leave it out"
        )
    return replace(
        config,
        data=replace(
            own,
            train_list=str(lists[0]),
            val_list=str(lists[1]),
            num_classes=own.num_classes or found.num_classes,
        ),
    )


def _check_head(source: Restored, config: FinetuneConfig) -> None:
    assert source.head is not None
    num_classes = source.head.head.out_features
    if num_classes != config.data.num_classes:
        raise CheckpointError(
            f"{source.origin}: its head has {num_classes} classes, {config.data.train_list} has "
            f"{config.data.num_classes}; --new-head takes the encoder alone"
        )


def _write_start(plan: FinetunePlan, folder: Path, *, new_head: bool) -> None:
    """The weights before the first step, for the ranks to read."""
    path, source = folder / START_FILE, plan.source
    if plan.config.from_scratch:
        path.unlink(missing_ok=True)
        return
    encoder = source.mae.encoder.state_dict()
    weights = {f"encoder.{n}": v for n, v in encoder.items() if not n.startswith("norm.")}
    if source.head is not None and not new_head:
        weights |= source.head.state_dict()
    checkpoints.write_tensors(path, weights)


def _train(plan: FinetunePlan, folder: Path) -> launch.Outcome:
    config = plan.config
    files = RunFiles(folder)
    view = make_view(
        config.log.mode,
        plan=ViewPlan(
            name=config.name,
            total_steps=plan.total_steps,
            total_epochs=config.optim.epochs,
            steps_per_epoch=plan.steps_per_epoch,
            mae_only_epochs=0,
            num_tokens=token_grid_of(config).num_tokens,
            num_visible=token_grid_of(config).num_tokens,
            sampler_learns=False,
            task="finetune",
        ),
    )

    def on_event(event: Mapping[str, Any]) -> None:
        files.on_event(event)
        view.on_event(event)

    try:
        with view:
            return run_finetune(
                config, folder, plan.placement, on_event=on_event, on_tick=view.on_tick
            )
    finally:
        files.close()


def _resume_command(config: FinetuneConfig, folder: Path) -> str:
    words = [config.start, "--config", str(folder / "config.yaml"), "--resume"]
    return f"tats finetune {shlex.join(words)}"


def _check_folder(config: FinetuneConfig, folder: Path, *, resume: bool) -> None:
    """A fresh run needs a fresh folder; a continued one needs its own."""
    try:
        found = checkpoints.find(folder)
    except CheckpointError:
        if resume and not (folder / "config.yaml").is_file():
            raise UsageError(f"{folder} holds no run to resume; leave out --resume") from None
        return
    if not resume:
        raise UsageError(
            f"{folder} already holds a run ({found.name}); continue it with --resume, "
            "or choose another --name"
        )
    if not is_fine_tuned(found):
        raise UsageError(f"{folder} is no fine-tuning run; choose another --name")
    before = parse_finetune(read_yaml(found / "config.yaml"), source=str(found / "config.yaml"))
    old, new = deciding(asdict(before)), deciding(asdict(config))
    changed = [f"{k} {old.get(k)!r} -> {v!r}" for k, v in new.items() if old.get(k) != v]
    if changed:
        raise UsageError(
            f"{folder} was begun with other settings: {'; '.join(changed)}; "
            "resume with the old ones, or choose another --name"
        )
