"""Commands about many runs: sweeps, their reports, and whether runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from tats_ray.cli.command import Command, MaybePath, PathArg, PlainCommand


@dataclass(frozen=True)
class Tune(Command):
    """Run a sweep: many trials of one configuration, side by side, and a table of the results.

    Takes fields as pretrain, for all trials, and those of the sweep as --sweep.FIELD.
    """

    outlives_reader: ClassVar[bool] = True

    sweep: PathArg
    """Sweep file, for example tune_configs/demo_table2.yaml."""
    dry_run: bool = False
    """Check everything and print the plan without starting a trial."""
    resume: bool = False
    """Keep the finished trials of the sweep with this name, and run the rest."""

    def run(self, flags: Sequence[str]) -> None:
        from tats_ray.sweeps.run_sweep import tune

        tune(self.sweep, flags, is_dry=self.dry_run, resume=self.resume)


@dataclass(frozen=True)
class TuneReport(PlainCommand):
    """Write the report of a sweep, finished or not. Type it as `tats tune report`."""

    experiment: PathArg
    """Folder of the sweep, for example runs/demo_table2."""
    out: MaybePath = None
    """Also copy the report and its pictures to this folder."""

    def carry_out(self) -> None:
        from tats_ray.sweeps.sweep_report import tune_report

        tune_report(self.experiment, self.out)


@dataclass(frozen=True)
class Compare(PlainCommand):
    """Test whether runs with different settings differ by more than their seeds do."""

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders. Runs that differ only in their seed form a group."""
    metric: str = "eval/error"
    """Name of the metric to compare, as in docs/metrics.md."""

    def carry_out(self) -> None:
        from tats_ray.evaluation.compare import compare

        compare(self.runs, self.metric)
