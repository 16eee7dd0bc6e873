"""Commands about the jobs of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tats_ray.cli.command import Command, MaybeText, PlainCommand, TextArg


@dataclass(frozen=True)
class Submit(Command):
    """Run a tats command on a cluster: tats submit [options] -- pretrain CONFIG [fields]."""

    address: MaybeText = ""
    """Job server, http://HOST:PORT. Default: RAY_API_SERVER_ADDRESS, or port 8265 here."""
    include: Annotated[tuple[Path, ...], tyro.conf.arg(help_behavior_hint="")] = ()
    """More files and folders to upload. Configurations in the command are always uploaded."""
    name: MaybeText = ""
    """Name of the job. The default is made from the command and the time."""
    wait: bool = True
    """Show the job's output until it ends. Ctrl-C leaves the job running."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.cluster.submit import submit

        submit(
            flags,
            address=self.address,
            include=self.include,
            name=self.name,
            is_followed=self.wait,
        )


@dataclass(frozen=True, kw_only=True)
class _AtServer(PlainCommand):
    address: MaybeText = ""
    """Address of the job server, as for submit."""


@dataclass(frozen=True, kw_only=True)
class _OfJob(_AtServer):
    job: TextArg
    """Name of the job, as `tats status` shows it."""


@dataclass(frozen=True, kw_only=True)
class Status(_AtServer):
    """List the jobs of a cluster."""

    def carry_out(self) -> None:
        from tats_ray.cluster.submit import show_status

        show_status(address=self.address)


@dataclass(frozen=True, kw_only=True)
class Logs(_OfJob):
    """Show a job's output until it ends; Ctrl-C leaves it running."""

    def carry_out(self) -> None:
        from tats_ray.cluster.submit import follow

        follow(self.job, address=self.address)


@dataclass(frozen=True, kw_only=True)
class Stop(_OfJob):
    """Stop a job after it has saved a checkpoint."""

    def carry_out(self) -> None:
        from tats_ray.cluster.submit import stop

        stop(self.job, address=self.address)
