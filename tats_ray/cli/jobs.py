"""Commands about the jobs of a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import Command, MaybeRunArg, MaybeText, PlainCommand, TextArg
from tats_ray.core.errors import UsageError


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
    """Show the runs of this machine, or list the jobs of a cluster.

    Without arguments it shows the runs in this folder and in runs/. It lists jobs where there are
    none, where --address is given, and where RAY_API_SERVER_ADDRESS is set.
    """

    place: MaybeRunArg = None
    """Run folder, or a folder with several."""

    def carry_out(self) -> None:
        from tats_ray.cluster.submit import show_status
        from tats_ray.runs.run_status import runs_in, show_runs

        if self.place is not None and self.address:
            raise UsageError("give a run folder or --address, and not both")
        folders = [] if self.address else runs_in(self.place or Path())
        if self.place is not None and not folders:
            raise UsageError(
                f"{self.place} is no run folder and holds none; `tats status` alone lists the runs "
                "in this folder, or else the jobs of a cluster"
            )
        if folders:
            show_runs(folders)
        if self.place is None and (not folders or "RAY_API_SERVER_ADDRESS" in os.environ):
            show_status(address=self.address)


@dataclass(frozen=True, kw_only=True)
class Logs(_AtServer):
    """Show the logs of a run of this machine, or a job's output until it ends.

    Ctrl-C leaves a job running.
    """

    place: MaybeRunArg = None
    """Run folder, or name of a job as `tats status` shows it. Default: the newest run here."""

    def carry_out(self) -> None:
        from tats_ray.cluster.submit import follow
        from tats_ray.runs.run_status import newest_run, runs_in, show_logs

        place = self.place or Path()
        if not self.address and runs_in(place):
            show_logs(newest_run(place))
        elif self.place is not None:
            follow(str(self.place), address=self.address)
        else:
            raise UsageError("there is no run in this folder; use tats logs RUN or tats logs JOB")


@dataclass(frozen=True)
class WatchCommand(PlainCommand):
    """Show a run as its own terminal does, from another one, while it goes on or after it.

    Ctrl-C leaves the run running. For a job of a cluster, use tats logs JOB.
    """

    place: MaybeRunArg = None
    """Run folder, or a folder with several, of which it takes the newest. Default: the newest run
    here."""
    mode: Literal["auto", "board", "plain"] = "auto"
    """auto is the board on a terminal, and plain lines elsewhere."""

    def carry_out(self) -> None:
        from tats_ray.runs.run_status import newest_run, watch_run

        watch_run(newest_run(self.place or Path()), mode=self.mode)


@dataclass(frozen=True, kw_only=True)
class Stop(_OfJob):
    """Stop a job after it has saved a checkpoint."""

    def carry_out(self) -> None:
        from tats_ray.cluster.submit import stop

        stop(self.job, address=self.address)
