"""Commands about environments, and the start of an algorithm for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import CommandGroup, PlainCommand, TextArg


@dataclass(frozen=True)
class Card(PlainCommand):
    """Describe an environment on one page: state, action, reward and its sign, sizes, speed."""

    id: str = "TATS/TokenSelection-v0"
    """Gymnasium id. Use `module:Namespace/Name-vN` for an environment of another package."""

    def carry_out(self) -> None:
        from tats_ray.cli.env_card import env_card

        env_card(self.id)


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


@dataclass(frozen=True)
class New(PlainCommand):
    """Start something of your own: `algorithm` writes a short file that works, and its test."""

    what: tyro.conf.Positional[Literal["algorithm"]]
    """What to start."""
    name: TextArg
    """Of the module, like my_algorithm."""
    folder: Path = Path()
    """Folder for the two files. The default is the current folder."""

    def carry_out(self) -> None:
        from tats_ray.cli.new_algorithm import new_algorithm

        files = new_algorithm(self.name, self.folder)
        print(f"{files.source}\n{files.test}\n{files.train_command}")
