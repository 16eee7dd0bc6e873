"""The command about video data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from tats_ray.cli.command import PathArg, PlainCommand


# One flat command: to tyro a union of one class is no subcommand, and "synth" would be the folder.
@dataclass(frozen=True)
class Data(PlainCommand):
    """Make video data: `synth` writes synthetic videos with known motion, lists and labels."""

    action: tyro.conf.Positional[Literal["synth"]]
    """What to do."""
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
