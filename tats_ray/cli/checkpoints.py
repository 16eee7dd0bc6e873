"""Commands that look at one checkpoint, or write it in another form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import CommandGroup, MaybeFloat, MaybePath, PathArg, PlainCommand
from tats_ray.config.encoder_flags import ClipSize


@dataclass(frozen=True)
class ShowMasks(PlainCommand):
    """Draw what a checkpoint looks at in a video."""

    checkpoint: PathArg
    """Run folder, or one checkpoint of it."""
    video: PathArg
    out: Path = Path("masks.png")
    """PNG to write."""
    compare: MaybePath = None
    """Checkpoint whose mask is the last row; default: a uniformly random mask."""
    mask_ratio: MaybeFloat = None
    """Other than the checkpoint's own."""

    def carry_out(self) -> None:
        from tats_ray.evaluation.show_masks import show_masks

        out = show_masks(
            self.checkpoint,
            self.video,
            self.out,
            compare=self.compare,
            mask_ratio=self.mask_ratio,
        )
        print(out)


@dataclass(frozen=True)
class Inspect(PlainCommand):
    """Say what a checkpoint is and what it holds; runs nothing that is in it."""

    checkpoint: PathArg
    """Run folder, checkpoint, transformers folder, or weight file (.pth, .safetensors)."""

    def carry_out(self) -> None:
        from tats_ray.checkpoints.describe import inspect

        for what, how_much in inspect(self.checkpoint):
            print(f"{what:>14}  {how_much}")


@dataclass(frozen=True)
class Convert(PlainCommand):
    """Write a checkpoint in another form: a run folder, or a file with the official names."""

    checkpoint: PathArg
    """Anything that `inspect` knows."""
    out: PathArg
    """Run folder to write; or a .pth or .safetensors file, which gets the official names."""
    config: MaybePath = None
    """Settings of a run that starts from these weights; default: those of the file's own model."""
    allow_partial: bool = False
    """Take a checkpoint that lacks more than 5 % of the autoencoder, as an encoder alone does."""
    clip: ClipSize = field(default_factory=ClipSize)

    def carry_out(self) -> None:
        from tats_ray.runs.convert import convert

        for line in convert(
            self.checkpoint,
            self.out,
            config=self.config,
            allow_partial=self.allow_partial,
            clip=self.clip,
        ):
            print(line)


@dataclass(frozen=True)
class Ckpt(CommandGroup):
    """Work on checkpoints: `inspect` says what a file is, `convert` changes its form."""

    action: (
        Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
    )


@dataclass(frozen=True)
class ExportCommand(PlainCommand):
    """Write a checkpoint for another library: `hf` is a folder that transformers loads."""

    form: tyro.conf.Positional[Literal["hf"]]
    """For whom."""
    checkpoint: PathArg
    """Anything that `tats ckpt inspect` knows."""
    out: PathArg
    """Folder to write; new."""
    clip: ClipSize = field(default_factory=ClipSize)

    def carry_out(self) -> None:
        from tats_ray.checkpoints.export_hf import export_hf

        print(export_hf(self.checkpoint, self.out, clip=self.clip))
