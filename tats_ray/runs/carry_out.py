"""A planned run is carried out: shown, written down, trained, and named again where it stopped."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tats_ray.config.differences import flat
from tats_ray.config.finetune_schema import Clustered, storage_retry_s
from tats_ray.core.words import byte_size, counted
from tats_ray.data.cache.make_cache import forecast_cache
from tats_ray.data.cache.shards import CacheSettings
from tats_ray.data.clip_lists import Lists
from tats_ray.runs.finetune_plan import FinetunePlan
from tats_ray.runs.pretrain_plan import Plan
from tats_ray.runs.run_folder import Past
from tats_ray.runs.run_record import record_board, record_end, record_logs
from tats_ray.runtime.driver import launch
from tats_ray.view.board import BoardPlan, make_view
from tats_ray.view.lines import note_line
from tats_ray.view.progress import DATA_BOUND_SHARE, format_duration
from tats_ray.view.records import BAD_VIDEOS_FILE
from tats_ray.view.trackers import TrackedRun, Trackers
from tats_ray.view.tracking import RunFiles, read_bad_videos

_CACHE_SIDE = 8 / 7
"""Short side in a cache, in sides of a clip: 256 px for 224."""


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
    config, advice = plan.config, CacheAdvice(plan.config, plan.lists)
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

    def on_tick() -> None:
        if told := advice.news():
            view.on_event({"kind": "cache", "text": told, "time": time.time()})
        view.on_tick()

    def on_event(event: Mapping[str, Any]) -> None:
        if is_waiting(shown, event):
            advice.ask()
        if event["kind"] == "logs":
            record_logs(folder, event["path"])
            return
        for listener in (files, trackers, view):
            listener.on_event(event)

    run = partial(launch.run, config, folder, plan.placement, rollout_bytes=plan.rollout_bytes)
    with trackers:
        with files, view:
            outcome = run(on_event=on_event, on_tick=on_tick)
        trackers.ending = "finished" if outcome.is_finished else "stopped"
        record_end(folder, trackers.ending)
        if report is not None and outcome.is_finished:
            page = report()
            trackers.attach([*sorted(folder.glob("masks_?.png")), page])
    _show_end(outcome, folder, again)
    return outcome


def is_waiting(shown: BoardPlan, event: Mapping[str, Any]) -> bool:
    """Whether a record says that the learners wait for clips more than they compute."""
    if event["kind"] != "metrics" or shown.is_cold(int(event["step"])):
        return False
    return float(event["metrics"].get("time/data") or 0.0) > DATA_BOUND_SHARE


class CacheAdvice:
    """What a cache of the training videos would take, measured on a few of them beside the run."""

    def __init__(self, config: Clustered, lists: Lists) -> None:
        self._config, self._lists = config, lists
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Begin to work it out, unless that was done before or there is a cache."""
        if self._thread is None and not self._config.data.cache:
            self._thread = threading.Thread(target=self._work_out, daemon=True)
            self._thread.start()

    def news(self) -> str:
        """The answer, once; empty before it is known."""
        try:
            return self._words.get_nowait()
        except queue.Empty:
            return ""

    def _work_out(self) -> None:
        side = max(round(self._config.data.image_size * _CACHE_SIDE), 16)
        jobs = os.cpu_count() or 1
        forecast = forecast_cache(self._lists.train, CacheSettings(side, 90), jobs)
        if forecast.num_bytes:
            took = format_duration(forecast.seconds)
            size, processes = byte_size(forecast.num_bytes), counted(jobs, "process")
            command = f"tats data cache LIST OUT --short-side {side}"
            self._words.put(f"{size}, {took} with {processes} ({command})")


def _show_end(outcome: launch.Outcome, folder: Path, again: str) -> None:
    if bad := read_bad_videos(folder):
        where = folder / BAD_VIDEOS_FILE
        print(f"{'bad videos':>14}  {len(bad)} could not be read; see {where}", flush=True)
    if not outcome.is_finished:
        print(f"{outcome.message}; continue with:\n  {again}", flush=True)
