"""The commands that make video data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import CommandGroup, PathArg, PlainCommand, TextArg


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
class Atari(PlainCommand):
    """Write videos of an Atari game with true states, the objects that move, and lists."""

    game: TextArg
    """A game of ale-py, such as pong, breakout, freeway, seaquest or ms_pacman."""
    out: PathArg
    """Folder to write. It must be new, or already hold this very data set."""
    num_train: int = 400
    num_val: int = 100
    num_frames: int = 32
    frame_skip: int = 2
    """Frames of the game for each frame of a video."""
    seed: int = 0
    needs_states: bool = False
    """Refuse a game whose memory is not annotated, because its videos come without states."""
    workers: int = 2
    """Threads. They do not change the files."""

    def carry_out(self) -> None:
        from tats_ray.data.atari.atari_set import make_atari

        made = make_atari(
            self.out,
            self.game,
            num_train=self.num_train,
            num_val=self.num_val,
            num_frames=self.num_frames,
            frame_skip=self.frame_skip,
            seed=self.seed,
            needs_states=self.needs_states,
            workers=self.workers,
            progress=_count,
        )
        print(f"{made.train_list}\n{made.val_list}")
        print(f"{'states':>14}  {', '.join(made.values) or 'none: nobody annotated this game'}")
        if not made.has_motion:
            print(f"{'motion':>14}  unknown: the background does not stand still")


def _count(done: int, total: int) -> None:
    """Progress, where somebody watches."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{'videos':>14}  {done}/{total}", end=end, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Data(CommandGroup):
    """Make video data: synthetic videos with known motion, or videos of Atari games."""

    action: (
        Annotated[Synth, tyro.conf.subcommand("synth")]
        | Annotated[Atari, tyro.conf.subcommand("atari")]
    )
