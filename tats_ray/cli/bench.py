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
    """Throughput with overlapped versus alternating policy updates."""

    rounds: int = 3
    """Number of rounds. Each round runs both modes once."""
    steps: int = 48
    """Steps measured in each mode and round."""
    staleness: int = 1
    """Value of loop.max_staleness in the overlapped mode."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.benchmarks.bench_overlap import bench_overlap

        bench_overlap(flags, rounds=self.rounds, steps=self.steps, staleness=self.staleness)


@dataclass(frozen=True)
class Buffer(PlainCommand):
    """The cost of handing over rollouts and weights, as a share of a training step."""

    manual = _MANUAL
    size: Literal["small", "base", "large"] = "base"
    """Size of the model. The paper uses base."""
    batch: int = 32
    """Clips in each rollout."""
    rounds: int = 5
    """How often each part is measured."""
    step_clips: int = 2
    """Clips of the training step it is compared with. 0 skips the comparison."""
    device: str = "cpu"
    """Device, such as cpu or cuda:1. On a GPU the compared step takes the whole batch."""

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
    """The number of rollout producers that a buffer and its policy learners can serve."""

    manual = _MANUAL
    producers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of producers to try."""
    shards: tuple[int, ...] = (1,)
    """Numbers of policy learners to try, each with a shard of the buffer."""
    clips: int = 2
    """Clips in each rollout, at ViT-B sizes."""
    period_s: float = 1.0
    """Seconds that a producer takes to make one rollout."""
    seconds: float = 6.0
    """Seconds of measurement for each number of producers."""

    def carry_out(self) -> None:
        from tats_ray.benchmarks.bench_scale import bench_scale

        bench_scale(
            self.producers,
            shards=self.shards,
            clips=self.clips,
            period_s=self.period_s,
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class Bench(CommandGroup):
    """Benchmark the movement of rollouts and weights: overlap, the buffer, and its limits."""

    action: (
        Annotated[Overlap, tyro.conf.subcommand("overlap")]
        | Annotated[Buffer, tyro.conf.subcommand("buffer")]
        | Annotated[Scale, tyro.conf.subcommand("scale")]
    )
