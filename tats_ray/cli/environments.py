"""Commands about environments, and the start of an algorithm for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import CommandGroup, PlainCommand, TextArg


@dataclass(frozen=True)
class Card(PlainCommand):
    """One page about an environment: state, action, reward and its sign, sizes, speed."""

    id: str = "TATS/TokenSelection-v0"
    """Gymnasium id; `module:Namespace/Name-vN` for one of another package."""

    def carry_out(self) -> None:
        from tats_ray.cli.env_card import env_card

        env_card(self.id)


@dataclass(frozen=True)
class Baseline(PlainCommand):
    """Train every algorithm against the tiny frozen autoencoder, and measure all of them alike."""

    clips: int = 256
    """Fixed clips that everything is measured on."""
    steps: int = 100
    """Updates of each learner."""
    seeds: int = 3
    """Times that each learner is trained."""

    def carry_out(self) -> None:
        from tats_ray.envs.baseline import env_baseline

        env_baseline(num_clips=self.clips, num_steps=self.steps, num_seeds=self.seeds)


@dataclass(frozen=True)
class Env(CommandGroup):
    """Look at the environments: `card` describes one, `baseline` measures the algorithms."""

    action: (
        Annotated[Card, tyro.conf.subcommand("card")]
        | Annotated[Baseline, tyro.conf.subcommand("baseline")]
    )


@dataclass(frozen=True)
class New(PlainCommand):
    """Start an algorithm or a sampler of your own: a short file that works, and its test."""

    what: tyro.conf.Positional[Literal["algorithm", "sampler"]]
    """What to start."""
    name: TextArg
    """Of the module, like my_sampler."""
    folder: Path = Path()
    """Where the two files go; default: here."""

    def carry_out(self) -> None:
        from tats_ray.cli.new_algorithm import new_algorithm
        from tats_ray.cli.new_sampler import new_sampler

        write = new_algorithm if self.what == "algorithm" else new_sampler
        files = write(self.name, self.folder)
        print(f"{files.source}\n{files.test}\n{files.train_command}")
