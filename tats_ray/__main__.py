"""The `tats` command. tyro enters the project here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tats_ray import __version__
from tats_ray.core.errors import TatsError, UsageError


@dataclass(frozen=True)
class Pretrain:
    """Train a masked autoencoder and its token sampler.

    Any field of the configuration can be changed with --branch.field VALUE; `tats fields` lists
    them all. The official script's flags (--mask_ratio, --epochs, ...) work too.
    """

    config: tyro.conf.Positional[Path]
    """YAML file, e.g. tune_configs/ucf101_tats.yaml."""
    resume: bool = False
    """Continue the run of this name from its newest checkpoint."""


@dataclass(frozen=True)
class Demo:
    """Make about 200 videos, train on them, and show what was learned. Takes fields as pretrain."""

    resume: bool = False
    """Continue an interrupted demo."""


@dataclass(frozen=True)
class ShowMasks:
    """Draw what a checkpoint looks at in a video."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder, or one checkpoint of it."""
    video: tyro.conf.Positional[Path]
    out: Path = Path("masks.png")
    """PNG to write."""
    compare: Path | None = None
    """Checkpoint whose mask is the last row; default: a uniformly random mask."""
    mask_ratio: float | None = None
    """Other than the checkpoint's own."""


# One flat command: to tyro a union of one class is no subcommand, and "synth" would be the folder.
@dataclass(frozen=True)
class Data:
    """Work on video data: `synth` writes videos whose motion is known, with lists and labels."""

    action: tyro.conf.Positional[Literal["synth"]]
    """What to do."""
    out: tyro.conf.Positional[Path]
    """Folder to write; new, or holding this very data set."""
    num_train: int = 200
    num_val: int = 48
    num_frames: int = 32
    size: int = 96
    """Pixels along each side."""
    seed: int = 0


@dataclass(frozen=True)
class Fields:
    """List every field of the configuration, with its default and its meaning."""


Command = (
    Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[ShowMasks, tyro.conf.subcommand("show-masks")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Fields, tyro.conf.subcommand("fields")]
)


def parse(words: Sequence[str]) -> tuple[object, list[str]]:
    """A command, and the words that are left: fields of the configuration."""
    return tyro.cli(
        Command,
        prog="tats",
        description="Trajectory-guided adaptive token selection for masked video modelling.",
        args=words,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def run(command: object, flags: Sequence[str]) -> None:
    """Carry out a parsed command. Heavy imports wait until they are needed."""
    if isinstance(command, Pretrain):
        from tats_ray.config.load import load_config
        from tats_ray.recipes.pretrain import pretrain

        pretrain(load_config(command.config, flags), resume=command.resume)
        return
    if isinstance(command, Demo):
        from tats_ray.recipes.demo import demo

        demo(flags, resume=command.resume)
        return
    if flags:
        raise UsageError(f"unexpected {' '.join(flags)}; see tats --help")
    if isinstance(command, ShowMasks):
        from tats_ray.recipes.show_masks import show_masks

        out = show_masks(
            command.checkpoint,
            command.video,
            command.out,
            compare=command.compare,
            mask_ratio=command.mask_ratio,
        )
        print(out)
    elif isinstance(command, Data):
        from tats_ray.data.synthetic import synthesize

        made = synthesize(
            command.out,
            num_train=command.num_train,
            num_val=command.num_val,
            num_frames=command.num_frames,
            size=command.size,
            seed=command.seed,
        )
        print(f"{made.train_list}\n{made.val_list}")
    elif isinstance(command, Fields):
        from tats_ray.config.load import field_docs

        for name, meaning, default in field_docs():
            print(f"{name} = {default!r}\n    {meaning}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `tats` and `python -m tats_ray`: 2 for a wrong request, 1 for a failed run."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"tats {__version__}")
        return
    command, flags = parse(words)
    try:
        run(command, flags)
    except TatsError as error:
        print(f"tats: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
