"""Commands about many runs: sweeps, their reports, and whether runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tats_ray.cli.command import Command, MaybePath, PathArg, PlainCommand


@dataclass(frozen=True)
class Tune(Command):
    """Run many trials of a configuration and compare them; `tats tune report EXP` shows them again.

    Takes fields as pretrain, for all trials, and those of the sweep as --sweep.FIELD.
    """

    sweep: PathArg
    """Sweep file, e.g. tune_configs/demo_table2.yaml."""
    dry_run: bool = False
    """Check everything, print the plan, and stop."""
    resume: bool = False
    """Keep the finished trials of this name, and go on with the rest."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.sweeps.run_sweep import tune

        tune(self.sweep, flags, is_dry=self.dry_run, resume=self.resume)


@dataclass(frozen=True)
class TuneReport(PlainCommand):
    """Table, pictures and best.yaml of a sweep, finished or not; typed as `tats tune report`."""

    experiment: PathArg
    """Folder of the sweep, such as runs/demo_table2."""
    out: MaybePath = None
    """Folder for a copy of the report and its pictures."""

    def carry_out(self) -> None:
        from tats_ray.sweeps.sweep_report import tune_report

        tune_report(self.experiment, self.out)


@dataclass(frozen=True)
class Compare(PlainCommand):
    """Say whether runs of other settings differ by more than their seeds do."""

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders; those that differ in their seed alone form a group."""
    metric: str = "eval/error"
    """What to compare, as docs/metrics.md names it."""

    def carry_out(self) -> None:
        from tats_ray.evaluation.compare import compare

        compare(self.runs, self.metric)
