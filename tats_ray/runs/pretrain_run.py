"""`tats pretrain`: from a configuration to a trained autoencoder and sampler, and a report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tats_ray.config.load import parse_config, read_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.runs.carry_out import carry_out
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runs.run_folder import own_folder
from tats_ray.runs.run_report import write_run_report
from tats_ray.runtime.driver.fit import Outcome
from tats_ray.view.board import BoardPlan


@dataclass(frozen=True)
class RunResult:
    """Where a run lies and how it ended."""

    folder: Path
    outcome: Outcome
    report: Path | None


def pretrain(config: RunConfig, *, resume: bool = False) -> RunResult:
    """Train until the last epoch, or until asked to stop.

    Args:
        resume: continue the run of this name; without it, an existing run is left alone.

    Raises:
        UsageError: for anything wrong that can be known before an actor starts.
        RunFailedError: for what went wrong later, with its first cause.
    """
    plan = make_plan(config)
    shown = BoardPlan(
        name=config.name,
        total_steps=plan.total_steps,
        total_epochs=config.loop.epochs,
        steps_per_epoch=plan.steps_per_epoch,
        mae_only_epochs=config.loop.mae_only_epochs,
        num_tokens=plan.num_tokens,
        num_visible=plan.num_visible,
        mae_only_masks=plan.warmup_masks,
        sampler_learns=plan.placement.learns_policy,
    )
    with own_folder(config, resume=resume, read=_read) as folder:
        again = f"tats pretrain {shlex.quote(str(folder / 'config.yaml'))} --resume"
        outcome = carry_out(plan, folder, shown, again)
        report = write_run_report(plan, folder) if outcome.is_finished else None
    return RunResult(folder, outcome, report)


def _read(path: Path) -> RunConfig:
    return parse_config(read_yaml(path), source=str(path))
