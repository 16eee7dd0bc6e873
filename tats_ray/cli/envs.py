"""Commands about environments."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from typing import Annotated

import tyro

from tats_ray.cli.command import CommandGroup, PlainCommand

_MARGIN = 16


@dataclass(frozen=True)
class Card(PlainCommand):
    """Describe an environment on one page: state, action, reward and its sign, sizes, speed."""

    id: str = "TATS/TokenSelection-v0"
    """Gymnasium id. Use `module:Namespace/Name-vN` for an environment of another package."""

    def carry_out(self) -> None:
        from tats_ray.envs.card import describe

        width = max(min(shutil.get_terminal_size().columns, 100), 46)
        for what, answer in describe(self.id):
            head, rest = f"{what:>{_MARGIN - 2}}  ", " " * _MARGIN
            print(textwrap.fill(answer, width, initial_indent=head, subsequent_indent=rest))


@dataclass(frozen=True)
class Baseline(PlainCommand):
    """Train every algorithm against the tiny frozen autoencoder and compare them."""

    clips: int = 256
    """Number of fixed clips used for every measurement."""
    steps: int = 100
    """Policy updates of each algorithm."""
    seeds: int = 3
    """Training runs of each algorithm, each with its own seed."""

    def carry_out(self) -> None:
        from tats_ray.envs.baseline import env_baseline

        env_baseline(num_clips=self.clips, num_steps=self.steps, num_seeds=self.seeds)


@dataclass(frozen=True)
class Env(CommandGroup):
    """Inspect environments: `card` describes one, `baseline` measures the algorithms on it."""

    action: (
        Annotated[Card, tyro.conf.subcommand("card")]
        | Annotated[Baseline, tyro.conf.subcommand("baseline")]
    )
