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
    """One page about an environment: state, action, reward and its sign, sizes, speed."""

    id: str = "TATS/TokenSelection-v0"
    """Gymnasium id; `module:Namespace/Name-vN` for one of another package."""

    def carry_out(self) -> None:
        from tats_ray.envs.card import describe

        width = max(min(shutil.get_terminal_size().columns, 100), 46)
        for what, answer in describe(self.id):
            head, rest = f"{what:>{_MARGIN - 2}}  ", " " * _MARGIN
            print(textwrap.fill(answer, width, initial_indent=head, subsequent_indent=rest))


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
