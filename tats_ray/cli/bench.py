"""Commands that measure what moves rollouts and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import Command, CommandGroup, PlainCommand

_MANUAL = "tats bench --help"


@dataclass(frozen=True)
class Overlap(Command):
    """Clips per second with the policy learning beside the autoencoder, against by turns."""

    rounds: int = 3
    """Times that both modes run, by turns."""
    steps: int = 48
    """Steps measured in each."""
    staleness: int = 1
    """loop.max_staleness of the overlapped mode."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.benchmarks.bench_overlap import bench_overlap

        bench_overlap(flags, rounds=self.rounds, steps=self.steps, staleness=self.staleness)


@dataclass(frozen=True)
class Buffer(PlainCommand):
    """What handing over rollouts and weights costs, as a share of a training step."""

    manual = _MANUAL
    size: Literal["small", "base", "large"] = "base"
    """Of the model; base is the paper's."""
    batch: int = 32
    """Clips of a rollout."""
    rounds: int = 5
    """Times that each part is measured."""
    step_clips: int = 2
    """Clips of the training step that it is compared with, scaled to the batch; 0 leaves it out."""
    device: str = "cpu"
    """Of the rollout and the step: cpu, cuda, cuda:1, ...; a GPU's step takes the whole batch."""

    def carry_out(self) -> None:
        from tats_ray.benchmarks.bench_buffer import bench_buffer

        bench_buffer(
            size=self.size,
            batch=self.batch,
            rounds=self.rounds,
            step_clips=self.step_clips,
            device=self.device,
        )


@dataclass(frozen=True)
class Scale(PlainCommand):
    """How many producers of rollouts one buffer and one policy learner can serve."""

    manual = _MANUAL
    producers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of producers to try."""
    clips: int = 2
    """Clips of a rollout, at ViT-B sizes."""
    period_s: float = 1.0
    """Seconds that a producer takes for one."""
    seconds: float = 6.0
    """Time that each number is measured for."""

    def carry_out(self) -> None:
        from tats_ray.benchmarks.bench_scale import bench_scale

        bench_scale(self.producers, clips=self.clips, period_s=self.period_s, seconds=self.seconds)


@dataclass(frozen=True)
class Bench(CommandGroup):
    """Measure what moves rollouts and weights: overlapping, the buffer, and its limits."""

    action: (
        Annotated[Overlap, tyro.conf.subcommand("overlap")]
        | Annotated[Buffer, tyro.conf.subcommand("buffer")]
        | Annotated[Scale, tyro.conf.subcommand("scale")]
    )
