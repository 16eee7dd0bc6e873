"""The commands about video data."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import CommandGroup, MaybePath, MaybeText, PathArg, PlainCommand
from tats_ray.core.words import counted


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
class CheckVideos(PlainCommand):
    """Decode every video of a list, and write which are sound and which are broken, and why."""

    list: PathArg
    """The list. Its index, NAME_ok.csv and NAME_bad.csv are written beside it."""
    root: MaybeText = ""
    """Folder of relative paths. The default is that of the list."""
    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = 1
    """Processes that decode."""
    limit_s: float = 60.0
    """Seconds that one file may take."""

    def carry_out(self) -> None:
        from tats_ray.core.errors import TatsError
        from tats_ray.data.catalog.check_videos import check_list

        shown = _Progress()
        try:
            checked = check_list(
                self.list,
                root=self.root or None,
                jobs=self.jobs,
                limit_s=self.limit_s,
                on_progress=shown,
            )
        except KeyboardInterrupt:
            print(f"stopped after {shown.done:,} videos; the same command continues there")
            raise
        print(checked)
        if checked.broken:
            broken = f"{len(checked.broken)} of {counted(len(checked.rows), 'video')}"
            raise TatsError(
                f"{broken} cannot be read; {checked.bad_table} says why, "
                f"{checked.ok_list} is the list without them"
            )


class _Progress:
    """Videos done, on standard error; where that is a file, a line every ten seconds."""

    def __init__(self) -> None:
        self.done = 0
        self._began = self._told = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        self.done, now, is_seen = done, time.monotonic(), sys.stderr.isatty()
        self._first = done if self._first is None else self._first
        if now < self._told + (1 if is_seen else 10) or done == self._first:
            return
        self._told = now
        left_s = (now - self._began) / (done - self._first) * (total - done)
        text = f"{done:,} of {total:,} videos, {left_s / 60:.1f} min left"
        print(text, end="   \r" if is_seen else "\n", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Data(CommandGroup):
    """Make lists of your videos (`index`), `check` them, or make synthetic videos (`synth`)."""

    action: (
        Annotated[Synth, tyro.conf.subcommand("synth")]
        | Annotated[Index, tyro.conf.subcommand("index")]
        | Annotated[CheckVideos, tyro.conf.subcommand("check")]
    )
