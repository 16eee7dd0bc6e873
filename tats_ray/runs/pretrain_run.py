"""`tats pretrain`: from a configuration to a trained autoencoder and sampler, and a report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from tats_ray.config.load import parse_config, read_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.runs.carry_out import carry_out, show_lines, show_plan
from tats_ray.runs.forecast import plan_anywhere, pretrain_forecast
from tats_ray.runs.pretrain_plan import Plan, make_plan
from tats_ray.runs.reports.run_report import write_run_report
from tats_ray.runs.run_folder import Past, own_folder
from tats_ray.runs.run_record import record_end
from tats_ray.runs.warm_start import first_state
from tats_ray.runtime.driver.fit import Outcome
from tats_ray.view.board import BoardPlan
from tats_ray.view.report_page import REPORT_FILE


@dataclass(frozen=True)
class RunResult:
    """Where a run lies and how it ended."""

    folder: Path
    outcome: Outcome
    report: Path | None


def pretrain(config: RunConfig, *, resume: bool = False, extend: bool = False) -> RunResult:
    """Train until the last epoch, or until asked to stop.

    Args:
        resume: continue the run of this name; without it, an existing run is left alone.
        extend: continue it for more epochs than it was begun with.

    Raises:
        UsageError: for anything wrong that can be known before an actor starts.
        RunFailedError: for what went wrong later, with its first cause.
    """
    plan = make_plan(config)
    past = Past(plan.config, plan.lists, resume=resume, extend=extend, read=_read)
    if past.is_complete:
        return _complete(plan, past)
    first = first_state(config) if config.init and past.is_new else None
    show_plan(plan, past, [("weights", first.words)] if first else [])
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
        loaders=config.data.num_workers,
        loader="decode actor" if config.num_decoders else "loader process",
    )
    with own_folder(config, plan.lists) as folder:
        if first is not None:
            first.save(folder)
        again = f"tats pretrain {shlex.quote(str(folder / 'config.yaml'))} --resume"
        outcome = carry_out(plan, folder, shown, again, report=lambda: _report(plan, folder))
    return RunResult(folder, outcome, folder / REPORT_FILE if outcome.is_finished else None)


def forecast(config: RunConfig, *, resume: bool = False, extend: bool = False) -> None:
    """Print the plan with time and memory, and start nothing.

    Raises:
        UsageError: for what is wrong on any machine.
    """
    plan, problem = plan_anywhere(config)
    own = replace(config, loop=plan.config.loop)
    past = Past(own, plan.lists, resume=resume, extend=extend, read=_read)
    if past.is_complete:
        _show_complete(past)
        return
    first = first_state(config) if config.init and past.is_new else None
    show_plan(plan, past, [("weights", first.words)] if first else [])
    show_lines(pretrain_forecast(plan, problem, epochs_done=past.epochs_done))


def _complete(plan: Plan, past: Past) -> RunResult:
    """A run that has nothing left to train says so; a report that it lacks is written."""
    _show_complete(past)
    assert past.reached is not None
    report = past.folder / REPORT_FILE
    if not (report.is_file() and report.stat().st_mtime >= past.reached.folder.stat().st_mtime):
        with own_folder(plan.config, plan.lists) as folder:
            report = _report(plan, folder)
            record_end(folder, "finished")
    return RunResult(past.folder, Outcome(True, "", past.reached.position.step), report)


def _report(plan: Plan, folder: Path) -> Path:
    return write_run_report(plan.config, folder, plan.lists.val or plan.lists.train)


def _show_complete(past: Past) -> None:
    run = shlex.quote(str(past.folder))
    longer = f"tats pretrain {run} --extend --loop.epochs {2 * past.epochs}"
    anew = f"tats pretrain {run} --init {run} --name NAME"
    for line in past.complete_lines(longer, anew):
        print(line, flush=True)


def _read(path: Path) -> RunConfig:
    return parse_config(read_yaml(path), source=str(path))
