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
    """Draw the masks and reconstructions of a checkpoint on a video."""

    checkpoint: PathArg
    """A run folder, or one of its checkpoints."""
    video: PathArg
    """Video file, from whose middle a clip is cut. Or a list of videos (.csv, .txt) for a film."""
    out: Path = Path("masks.png")
    """File to write: .png, .jpg, .pdf or .svg, or .gif or .mp4 for a film."""
    compare: MaybePath = None
    """Checkpoint whose mask fills the last row. The default is a uniformly random mask."""
    mask_ratio: MaybeFloat = None
    """Mask ratio to use instead of the checkpoint's own."""
    over_training: bool = False
    """Film how the mask changed: one picture for each checkpoint that the run has kept."""

    def carry_out(self) -> None:
        from tats_ray.evaluation.show_masks import show_masks

        out = show_masks(
            self.checkpoint,
            self.video,
            self.out,
            compare=self.compare,
            mask_ratio=self.mask_ratio,
            over_training=self.over_training,
        )
        print(out)


@dataclass(frozen=True)
class Report(PlainCommand):
    """Write the report of a run, or one page that compares several."""

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders. Several give a page with their curves, clips and figures side by side."""
    compare: MaybePath = None
    """Checkpoint whose mask the viewer also shows. The default is a uniformly random mask."""
    out: MaybePath = None
    """File to write. Default: report.html in the run, or comparison.html here."""

    def carry_out(self) -> None:
        from tats_ray.runs.reports.report_runs import report

        print(report(self.runs, compare=self.compare, out=self.out))


@dataclass(frozen=True)
class Inspect(PlainCommand):
    """Show what a checkpoint is and what it holds. No code in the file is run."""

    checkpoint: PathArg
    """A run folder, a checkpoint, a transformers folder, or a .pth or .safetensors file."""

    def carry_out(self) -> None:
        from tats_ray.checkpoints.describe import inspect

        for what, how_much in inspect(self.checkpoint):
            print(f"{what:>14}  {how_much}")


@dataclass(frozen=True)
class Convert(PlainCommand):
    """Convert a checkpoint to a run folder, or to a file with the official tensor names."""

    checkpoint: PathArg
    """Any checkpoint that `tats ckpt inspect` can read."""
    out: PathArg
    """Run folder to write, or a .pth or .safetensors file with the official tensor names."""
    config: MaybePath = None
    """Settings of a run that starts from these weights. Default: those of the file's model."""
    allow_partial: bool = False
    """Accept a checkpoint that lacks over 5 % of the autoencoder, such as a lone encoder."""
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
    """Work on checkpoints: `inspect` shows what a file is, `convert` changes its format."""

    action: (
        Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
    )


@dataclass(frozen=True)
class ExportCommand(PlainCommand):
    """Export a checkpoint for another library. `hf` writes a folder that transformers can load."""

    form: tyro.conf.Positional[Literal["hf"]]
    """Format of the export."""
    checkpoint: PathArg
    """Any checkpoint that `tats ckpt inspect` can read."""
    out: PathArg
    """Folder to write. It must not exist yet."""
    clip: ClipSize = field(default_factory=ClipSize)

    def carry_out(self) -> None:
        from tats_ray.checkpoints.export_hf import export_hf

        print(export_hf(self.checkpoint, self.out, clip=self.clip))
