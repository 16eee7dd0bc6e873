"""Commands that train one model, and the list of what can be set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tats_ray.cli.command import (
    Command,
    MaybeDataArg,
    MaybePath,
    MaybeText,
    PathArg,
    PlainCommand,
)


@dataclass(frozen=True)
class Pretrain(Command):
    """Train a masked autoencoder and its token sampler.

    Any field of the configuration can be changed with --branch.field VALUE; `tats fields` lists
    them all. The official script's flags (--mask_ratio, --epochs, ...) work too.
    """

    outlives_reader: ClassVar[bool] = True

    config: PathArg
    """YAML file, for example tune_configs/ucf101_tats.yaml, or a run folder, which has one."""
    resume: bool = False
    """Continue the run with this name from its newest checkpoint."""
    extend: bool = False
    """Continue it for more epochs, which --loop.epochs gives. The learning rate follows the longer
    schedule from there."""
    init: MaybeText = ""
    """Start from the weights of a checkpoint: a run folder's newest, or any that `tats ckpt
    inspect` can read. Nothing else of it is used."""
    dry_run: bool = False
    """Check everything and print the plan with time and memory, without starting the run."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.config.load import load_config
        from tats_ray.runs.pretrain_run import forecast, pretrain

        more = ["--init", self.init] if self.init else []
        act = forecast if self.dry_run else pretrain
        act(load_config(self.config, [*flags, *more]), resume=self.resume, extend=self.extend)


@dataclass(frozen=True)
class Demo(Command):
    """Make videos of Pong, train on them, and show what was learned. Accepts pretrain's fields."""

    outlives_reader: ClassVar[bool] = True

    blobs: bool = False
    """Train on synthetic videos of moving shapes instead, whose classes are motions."""
    resume: bool = False
    """Continue an interrupted demo."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.runs.demo import BLOBS, PONG, demo

        demo(flags, config_path=BLOBS if self.blobs else PONG, resume=self.resume)


@dataclass(frozen=True)
class Finetune(Command):
    """Train a classifier from a pre-trained encoder.

    Any field can be changed with --branch.field VALUE; `tats fields --finetune` lists them all.
    """

    outlives_reader: ClassVar[bool] = True

    checkpoint: PathArg
    """Any checkpoint that `tats ckpt inspect` can read."""
    data: MaybeDataArg = None
    """Folder with train.csv and val.csv, unless the configuration names both lists."""
    config: MaybePath = None
    """YAML file, for example tune_configs/finetune_ucf101.yaml. Default: all defaults."""
    from_scratch: bool = False
    """Start from random weights in the checkpoint's shape, as the supervised baseline."""
    new_head: bool = False
    """Discard the classifier of a checkpoint that was already fine-tuned."""
    resume: bool = False
    """Continue the run with this name from its newest checkpoint."""
    extend: bool = False
    """Continue it for more epochs, which --optim.epochs gives."""
    dry_run: bool = False
    """Check everything and print the plan with time and memory, without starting the run."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.config.load import finetune_config, parse_flags
        from tats_ray.config.paths import LISTS
        from tats_ray.evaluation.labelled_lists import refuse_both
        from tats_ray.runs.finetune_run import finetune, forecast

        # Lists of a file give way to the folder, and a note says so; typed ones were meant.
        typed = dict(parse_flags(flags, official={}))
        refuse_both(self.data, {f"--{name}": typed.get(name) for name in LISTS})
        more = ["--from_scratch", "true"] if self.from_scratch else []
        more += ["--new_head", "true"] if self.new_head else []
        config = finetune_config(self.config, [*flags, *more])
        act = forecast if self.dry_run else finetune
        act(self.checkpoint, self.data, config, resume=self.resume, extend=self.extend)


@dataclass(frozen=True)
class Fields(PlainCommand):
    """List every field of the configuration with its default and its meaning."""

    finetune: bool = False
    """List the fields of `tats finetune` instead of `tats pretrain`."""

    def carry_out(self) -> None:
        from tats_ray.config.finetune_schema import FinetuneConfig
        from tats_ray.config.load import field_docs

        for name, meaning, default in field_docs(FinetuneConfig() if self.finetune else None):
            print(f"{name} = {default!r}\n    {meaning}")
