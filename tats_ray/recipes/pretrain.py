"""`tats pretrain`: from a configuration to a trained autoencoder and sampler, and a report."""

from __future__ import annotations

import fcntl
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.config.differences import deciding
from tats_ray.config.load import dump_config, parse_config, read_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.recipes.plan import Plan, make_plan
from tats_ray.recipes.report import write_run_report
from tats_ray.runtime import launch
from tats_ray.view.board import ViewPlan, make_view
from tats_ray.view.tracking import RunFiles


@dataclass(frozen=True)
class Result:
    """Where a run lies and how it ended."""

    folder: Path
    outcome: launch.Outcome
    report: Path | None


def run_folder(config: RunConfig) -> Path:
    if not config.name or "/" in config.name:
        raise UsageError(f"name {config.name!r} is no folder name; use --name NAME")
    return Path(config.checkpoint.folder) / config.name


def pretrain(config: RunConfig, *, resume: bool = False) -> Result:
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
    folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(folder):
        (folder / "config.yaml").write_text(dump_config(config))
        for what, how_much in plan.lines():
            print(f"{what:>14}  {how_much}")
        print(f"{'run folder':>14}  {folder}", flush=True)
        outcome = _train(plan, folder)
        if not outcome.is_finished:
            print(f"{outcome.message}; continue with:\n  {resume_command(folder)}", flush=True)
            return Result(folder, outcome, None)
        report = write_run_report(plan, folder)
        return Result(folder, outcome, report)


def _read(path: Path) -> RunConfig:
    return parse_config(read_yaml(path), source=str(path))


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    return f"tats pretrain {shlex.quote(str(folder / 'config.yaml'))} --resume"


def _train(plan: Plan, folder: Path) -> launch.Outcome:
    config = plan.config
    files = RunFiles(folder)
    view = make_view(
        config.log.mode,
        plan=ViewPlan(
            name=config.name,
            total_steps=plan.total_steps,
            total_epochs=config.loop.epochs,
            steps_per_epoch=plan.steps_per_epoch,
            mae_only_epochs=config.loop.mae_only_epochs,
            num_tokens=plan.num_tokens,
            num_visible=plan.num_visible,
            mae_only_masks=plan.warmup_masks,
            sampler_learns=plan.placement.learns_policy,
        ),
    )

    def on_event(event: Mapping[str, Any]) -> None:
        files.on_event(event)
        view.on_event(event)

    try:
        with view:
            return launch.run(
                config, folder, plan.placement, on_event=on_event, on_tick=view.on_tick
            )
    finally:
        files.close()


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
    try:
        found = checkpoints.find(folder)
    except CheckpointError:
        if resume and not (folder / "config.yaml").is_file():
            raise UsageError(f"{folder} holds no run to resume; leave out --resume") from None
        return
    if not resume:
        raise UsageError(
            f"{folder} already holds a run ({found.name}); continue it with --resume, "
            "or choose another --name"
        )
    old, new = deciding(asdict(read(found / "config.yaml"))), deciding(settings)
    changed = [f"{k} {old.get(k)!r} -> {v!r}" for k, v in new.items() if old.get(k) != v]
    if changed:
        raise UsageError(
            f"{folder} was begun with other settings: {'; '.join(changed)}; "
            "resume with the old ones, or choose another --name"
        )


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs cannot write into it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"another process is running in {folder}; wait for it, or choose another --name"
            ) from None
        yield
