"""`tats pretrain`: from a configuration to a trained autoencoder and sampler, and a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.folders import candidates
from tats_ray.config.differences import deciding
from tats_ray.config.load import dump_config, parse_config, read_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder
from tats_ray.runs.event_files import watched
from tats_ray.runs.pretrain_plan import Plan, make_plan
from tats_ray.runs.run_folder import run_folder
from tats_ray.runs.run_lock import only_run_in
from tats_ray.runs.run_report import write_run_report
from tats_ray.runtime.driver import launch
from tats_ray.view.board import BoardPlan


@dataclass(frozen=True)
class RunResult:
    """Where a run lies and how it ended."""

    folder: Path
    outcome: launch.Outcome
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
    folder = run_folder(config)
    check_folder(folder, asdict(config), resume=resume, read=_read)
    make_folder(folder, way_out="use another --checkpoint.folder or --name")
    with only_run_in(folder):
        (folder / "config.yaml").write_text(dump_config(config))
        for what, how_much in plan.lines():
            print(f"{what:>14}  {how_much}")
        print(f"{'run folder':>14}  {folder}", flush=True)
        outcome = _train(plan, folder)
        if not outcome.is_finished:
            print(f"{outcome.message}; continue with:\n  {resume_command(folder)}", flush=True)
            return RunResult(folder, outcome, None)
        report = write_run_report(plan, folder)
        return RunResult(folder, outcome, report)


def _read(path: Path) -> RunConfig:
    return parse_config(read_yaml(path), source=str(path))


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    return f"tats pretrain {shlex.quote(str(folder / 'config.yaml'))} --resume"


def _train(plan: Plan, folder: Path) -> launch.Outcome:
    config = plan.config
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
    with watched(config, folder, shown) as (on_event, on_tick):
        return launch.run(
            config,
            folder,
            plan.placement,
            on_event=on_event,
            on_tick=on_tick,
            rollout_bytes=plan.rollout_bytes,
        )


def check_folder(
    folder: Path, settings: Mapping[str, Any], *, resume: bool, read: Callable[[Path], Any]
) -> None:
    """A fresh run needs a fresh folder; a continued one needs its own.

    Args:
        settings: of the run that is to begin.
        read: configuration file -> configuration; that of the run that is continued.

    Raises:
        UsageError: when it is taken, not there, or was begun with other settings.
    """
    found = candidates(folder / "checkpoints")
    if not found:
        if resume and not (folder / "config.yaml").is_file():
            raise UsageError(
                f"there is no run to resume: {folder.resolve()} has neither a checkpoint nor a "
                "config.yaml; check --name and --checkpoint.folder, or start a new run without "
                "--resume"
            )
        return
    if not resume:
        raise UsageError(
            f"{folder} already holds a run ({found[0].name}); continue it with --resume, "
            "or choose another --name"
        )
    # The newest may be damaged: rank 0 says so, and goes on from the one before.
    begun = next((f for f in (c / "config.yaml" for c in found) if f.is_file()), None)
    if begun is None:
        return
    old, new = deciding(asdict(read(begun))), deciding(settings)
    changed = [f"{k} {old.get(k)!r} -> {v!r}" for k, v in new.items() if old.get(k) != v]
    if changed:
        raise UsageError(
            f"{folder} was started with other settings: {'; '.join(changed)}; "
            "resume with the old ones, or choose another --name"
        )
