"""`tats finetune`: from a pre-trained encoder and labelled videos to a classifier."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.fine_tuned import START_FILE
from tats_ray.config.finetune_schema import FinetuneConfig, token_grid_of
from tats_ray.config.load import parse_finetune, read_yaml
from tats_ray.config.paths import CONFIG_FILE
from tats_ray.runs.carry_out import carry_out, show_lines, show_plan
from tats_ray.runs.finetune_plan import FinetunePlan, make_finetune_plan
from tats_ray.runs.forecast import finetune_forecast
from tats_ray.runs.run_folder import Past, own_folder
from tats_ray.runtime.driver.fit import Outcome
from tats_ray.view.board import BoardPlan
from tats_ray.view.tracking import read_metrics


@dataclass(frozen=True)
class FinetuneResult:
    """Where a run lies and how it ended."""

    folder: Path
    outcome: Outcome
    top1: float | None
    """Of the last measurement, 0 to 1; None without a validation list."""


def finetune(
    checkpoint: str | Path,
    data: str | Path | None,
    config: FinetuneConfig,
    *,
    resume: bool = False,
    extend: bool = False,
) -> FinetuneResult:
    """Fine-tune until the last epoch, or until asked to stop.

    Args:
        checkpoint: anything that `tats ckpt inspect` knows.
        data: folder with train.csv and val.csv; None where `data.train_list` names them.
        resume: continue the run of this name; without it, an existing run is left alone.
        extend: continue it for more epochs than it was begun with.

    Raises:
        UsageError: for anything wrong that can be known before an actor starts.
        RunFailedError: for what went wrong later, with its first cause.
    """
    plan = make_finetune_plan(checkpoint, data, config)
    past = Past(plan.config, plan.lists, resume=resume, extend=extend, read=_read)
    if past.is_complete:
        return _complete(past, plan.config)
    show_plan(plan, past)
    config, num_tokens = plan.config, token_grid_of(plan.config).num_tokens
    shown = BoardPlan(
        name=config.name,
        total_steps=plan.total_steps,
        total_epochs=config.optim.epochs,
        steps_per_epoch=plan.steps_per_epoch,
        mae_only_epochs=0,
        num_tokens=num_tokens,
        num_visible=num_tokens,
        sampler_learns=False,
        task="finetune",
        loaders=config.data.num_workers,
    )
    with own_folder(config, plan.lists) as folder:
        _write_start(plan, folder)
        outcome = carry_out(plan, folder, shown, f"tats finetune {_again(config, folder)} --resume")
    top1 = _measured(folder)
    if not outcome.is_finished:
        return FinetuneResult(folder, outcome, None)
    if top1 is not None:
        print(f"{'result':>14}  top-1 {top1:.1%} of single clips; all views with:")
        words = [str(folder), "--list", config.data.val_list]
        print(f"  tats test {shlex.join(words)}", flush=True)
    return FinetuneResult(folder, outcome, top1)


def forecast(
    checkpoint: str | Path,
    data: str | Path | None,
    config: FinetuneConfig,
    *,
    resume: bool = False,
    extend: bool = False,
) -> None:
    """Print the plan with time and memory, and start nothing; as `finetune` otherwise."""
    plan = make_finetune_plan(checkpoint, data, config)
    past = Past(plan.config, plan.lists, resume=resume, extend=extend, read=_read)
    if past.is_complete:
        _complete(past, plan.config)
        return
    show_plan(plan, past)
    show_lines(finetune_forecast(plan, epochs_done=past.epochs_done))


def _complete(past: Past, config: FinetuneConfig) -> FinetuneResult:
    """A run that has nothing left to train says so."""
    longer = f"tats finetune {_again(config, past.folder)} --extend --optim.epochs"
    anew = f"tats finetune {shlex.quote(str(past.folder))} DATA --name NAME"
    for line in past.complete_lines(f"{longer} {2 * past.epochs}", anew):
        print(line, flush=True)
    assert past.reached is not None
    outcome = Outcome(True, "", past.reached.position.step)
    return FinetuneResult(past.folder, outcome, _measured(past.folder))


def _again(config: FinetuneConfig, folder: Path) -> str:
    """The arguments that name this run."""
    return shlex.join([config.start, "--config", str(folder / CONFIG_FILE)])


def _measured(folder: Path) -> float | None:
    """The last top-1 of a run, where it was measured."""
    return next((r["val/top1"] for r in read_metrics(folder)[::-1] if "val/top1" in r), None)


def _write_start(plan: FinetunePlan, folder: Path) -> None:
    """The weights before the first step, for the ranks to read."""
    path = folder / START_FILE
    if plan.config.from_scratch:
        path.unlink(missing_ok=True)
        return
    checkpoints.write_tensors(path, plan.start_weights())


def _read(path: Path) -> FinetuneConfig:
    return parse_finetune(read_yaml(path), source=str(path))
