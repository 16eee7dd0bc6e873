"""The command that looks at one video of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tats_ray.cli.command import MaybeFloat, MaybePath, PathArg, PlainCommand


@dataclass(frozen=True)
class SelectCommand(PlainCommand):
    """Choose the most telling frames of a video, and the regions in them, with a learned sampler.

    Writes selection.json (times, boxes, probabilities), sheet.png (the frames) and heat.mp4 (where
    the sampler looks, over the whole video).
    """

    video: PathArg
    """Video file, or folder of numbered pictures."""
    checkpoint: Annotated[
        Path | None, tyro.conf.arg(name="run", metavar="PATH", help_behavior_hint="")
    ] = None
    """Run folder or checkpoint with a learned sampler. Default: a tiny one from the package, which
    has seen no real video."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 8
    """Number of frames."""
    out: MaybePath = None
    """Folder for the files. The default is named after the video, in the working folder."""
    mask_ratio: MaybeFloat = None
    """Share of tokens to hide. Default: the sampler's own."""

    def carry_out(self) -> None:
        from tats_ray.evaluation.selecting.select_command import select_video

        for line in select_video(
            self.video, run=self.checkpoint, k=self.k, out=self.out, mask_ratio=self.mask_ratio
        ):
            print(line)
