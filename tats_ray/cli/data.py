"""The commands about video data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import CommandGroup, MaybePath, PathArg, PlainCommand


@dataclass(frozen=True)
class Synth(PlainCommand):
    """Write synthetic videos with known motion, lists and labels."""

    out: PathArg
    """Folder to write. It must be new, or already hold this very data set."""
    num_train: int = 200
    num_val: int = 48
    num_frames: int = 32
    size: int = 96
    """Pixels along each side."""
    seed: int = 0
    look: Literal["vivid", "clear"] = "vivid"
    """clear shows warm sprites on a calm, cool background, which is quick to learn."""

    def carry_out(self) -> None:
        from tats_ray.data.synthetic import synthesize

        made = synthesize(
            self.out,
            num_train=self.num_train,
            num_val=self.num_val,
            num_frames=self.num_frames,
            size=self.size,
            seed=self.seed,
            look=self.look,
        )
        print(f"{made.train_list}\n{made.val_list}")


@dataclass(frozen=True)
class Index(PlainCommand):
    """Write train.csv, val.csv, test.csv and classes.json for a downloaded data set or a folder."""

    kind: tyro.conf.Positional[Literal["ucf101", "hmdb51", "k400", "ssv2", "folder"]]
    """What the folder holds; `folder` takes class folders, or videos without classes."""
    root: PathArg
    """Folder with the videos and the official lists, in any folders beneath it."""
    split: int = 1
    """Which of the three splits of UCF101 or HMDB51."""
    out: MaybePath = None
    """Folder for the lists. The default is the folder with the videos."""
    val_share: float = 0.1
    """Share of the videos of `folder` that goes into val.csv, unless it has a folder val."""

    def carry_out(self) -> None:
        from tats_ray.data.catalog.make_lists import index_dataset

        print(
            index_dataset(
                self.kind, self.root, split=self.split, out=self.out, val_share=self.val_share
            )
        )


@dataclass(frozen=True)
class Data(CommandGroup):
    """Make synthetic videos (`synth`), or lists of your own (`index`)."""

    action: (
        Annotated[Synth, tyro.conf.subcommand("synth")]
        | Annotated[Index, tyro.conf.subcommand("index")]
    )
