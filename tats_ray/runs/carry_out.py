"""A planned run is carried out: shown, written down, trained, and named again where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tats_ray.config.differences import flat
from tats_ray.config.finetune_schema import storage_retry_s
from tats_ray.runs.finetune_plan import FinetunePlan
from tats_ray.runs.pretrain_plan import Plan
from tats_ray.runs.run_folder import Past
from tats_ray.runs.run_record import record_board, record_end, record_logs
from tats_ray.runtime.driver import launch
from tats_ray.view.board import BoardPlan, make_view
from tats_ray.view.lines import note_line
from tats_ray.view.records import BAD_VIDEOS_FILE
from tats_ray.view.trackers import TrackedRun, Trackers
from tats_ray.view.tracking import RunFiles, read_bad_videos


def show_plan(plan: Plan | FinetunePlan, past: Past, more: Iterable[tuple[str, str]] = ()) -> None:
    """Print what a run will do, and where.

    Args:
        more: (what, how much) of this run alone.
    """
    lines = [*plan.lines(), *more]
    if past.reached is not None and past.new_epochs > past.epochs:
        schedule, old = plan.schedule(past.new_epochs), plan.schedule(past.epochs)
        words = schedule.stretched_from(old, past.reached.optimizer_steps)
        lines.append(("extended", words))
    show_lines([*lines, ("run folder", str(past.folder))])


def show_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines in the form of a plan, each as soon as it is known."""
    for what, how_much in lines:
        print(f"{what:>14}  {how_much}", flush=True)


def carry_out(
    plan: Plan | FinetunePlan,
    folder: Path,
    shown: BoardPlan,
    again: str,
    report: Callable[[], Path] | None = None,
) -> launch.Outcome:
    """Train, write what the run tells into its folder, and show it.

    Args:
        again: the command that goes on with the run, for one that is stopped before its end.
        report: writes the report of a run that is finished.

    Raises:
        UsageError, RunFailedError: as `launch.run`.
    """
    config = plan.config
    record_board(folder, shown)
    view = make_view(config.log.mode, plan=shown)

    def on_note(text: str) -> None:
        if view.is_closed:  # a tracker's last word
            print(note_line(text), flush=True)
        else:
            view.on_event({"kind": "note", "text": text, "time": time.time()})

    files = RunFiles(
        folder,
        retry_s=storage_retry_s(config),
        on_note=on_note,
        has_tensorboard="tensorboard" in config.log.trackers,
    )
    tracked = TrackedRun(folder, config.name, flat(asdict(config)))
    trackers = Trackers(config.log.trackers, tracked, on_note=on_note)

    def on_event(event: Mapping[str, Any]) -> None:
        if event["kind"] == "logs":
            record_logs(folder, event["path"])
            return
        files.on_event(event)
        trackers.on_event(event)
        view.on_event(event)

    with trackers:
        with files, view:
            outcome = launch.run(
                config,
                folder,
                plan.placement,
                on_event=on_event,
                on_tick=view.on_tick,
                rollout_bytes=plan.rollout_bytes,
            )
        trackers.ending = "finished" if outcome.is_finished else "stopped"
        record_end(folder, trackers.ending)
        if report is not None and outcome.is_finished:
            page = report()
            trackers.attach([*sorted(folder.glob("masks_?.png")), page])
    _show_end(outcome, folder, again)
    return outcome


def _show_end(outcome: launch.Outcome, folder: Path, again: str) -> None:
    if bad := read_bad_videos(folder):
        where = folder / BAD_VIDEOS_FILE
        print(f"{'bad videos':>14}  {len(bad)} could not be read; see {where}", flush=True)
    if not outcome.is_finished:
        print(f"{outcome.message}; continue with:\n  {again}", flush=True)
