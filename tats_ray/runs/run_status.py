"""Runs seen from outside, from what they leave in their folders: status, logs, and watching."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tats_ray.checkpoints.folders import candidates
from tats_ray.checkpoints.format import saved_epoch
from tats_ray.config.differences import flat
from tats_ray.config.load import read_yaml
from tats_ray.config.paths import CONFIG_FILE, is_run_folder
from tats_ray.core.errors import TatsError, UsageError
from tats_ray.core.folder_lock import holder_in_words
from tats_ray.core.words import three
from tats_ray.runs.run_record import read_board, read_run
from tats_ray.view.board import Mode, make_view
from tats_ray.view.progress import format_duration
from tats_ray.view.tables import print_table
from tats_ray.view.tracking import METRICS_FILE, read_events, read_metrics

_NUM_LINES = 20
_ERRORS = ("eval/error", "mae/loss", "val/top1", "finetune/loss")


def runs_in(folder: Path) -> list[Path]:
    """The run folders that a path means: itself, those in it, or those in its `runs`."""
    if is_run_folder(folder):
        return [folder]
    found = [path for place in (folder, folder / "runs") for path in sorted(place.glob("*"))]
    return [path for path in found if is_run_folder(path)]


def newest_run(folder: Path) -> Path:
    """The run that wrote to its folder last, among those that a path means.

    Raises:
        UsageError: where there is none.
    """
    found = runs_in(folder)
    if not found:
        what = "has no run folder in it" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {what}; `tats status` lists the runs here")
    return max(found, key=_last_written)


def _last_written(run: Path) -> float:
    times = [run.stat().st_mtime]
    for path in run.iterdir():
        with suppress(OSError):  # a file that is replaced just now
            times.append(path.stat().st_mtime)
    return max(times)


def show_runs(folders: list[Path]) -> None:
    """One run in full, several in a table."""
    if len(folders) == 1:
        for what, how_much in describe_run(folders[0]):
            print(f"{what:>14}  {how_much}")
        return
    wanted = ("state", "reached", "error", "last record")
    rows = []
    for folder in folders:
        try:
            lines = dict(describe_run(folder))
        except TatsError as error:  # a broken configuration does not hide the other runs
            lines = {"state": str(error)}
        rows.append([str(folder), *(lines.get(what, "-") for what in wanted)])
    print_table(("run", *wanted), rows)


def describe_run(folder: Path) -> Iterator[tuple[str, str]]:
    """(what, how much) of a run: state, progress, error, age, checkpoint, logs."""
    yield "run", str(folder)
    epochs = _epochs(folder)
    yield "state", _state(folder)
    records = read_metrics(folder)
    if records:
        yield "reached", f"step {records[-1]['step']}, epoch {records[-1]['epoch']} of {epochs}"
        for name in _ERRORS:
            values = [record[name] for record in records if name in record]
            if values and not math.isnan(values[-1]):
                yield "error", f"{name} {three(values[-1])}"
                break
        age = time.time() - (folder / METRICS_FILE).stat().st_mtime
        yield "last record", f"{format_duration(age)} ago"
    newest = candidates(folder / "checkpoints")[:1]
    yield "checkpoint", str(newest[0]) if newest else "none yet"
    yield "logs", _logs(folder) or "none recorded"


def show_logs(folder: Path) -> None:
    """The last lines of what the processes of a run wrote, and where all of it lies.

    Raises:
        UsageError: where nothing is left of it.
    """
    place = Path(_logs(folder))
    if not _logs(folder) or not place.is_dir():
        raise UsageError(
            f"{folder}: the logs of its processes are not here ({_logs(folder) or 'none recorded'})"
            f"; its records are in {METRICS_FILE}, and `tats logs JOB` shows a cluster's job"
        )
    files = [path for path in place.glob("worker-*") if path.stat().st_size]
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        print(f"== {path.name}")
        print(*path.read_text(errors="replace").splitlines()[-_NUM_LINES:], sep="\n")
    print(f"{'state':>14}  {_state(folder)}")
    print(f"{'all logs':>14}  {place}")


def watch_run(folder: Path, *, mode: Mode = "auto", poll_s: float = 0.5) -> None:
    """Show a run as its own terminal does, while it goes on or after it.

    Args:
        poll_s: between two looks at its files.

    Raises:
        UsageError: for a run that is over and left nothing to show.
    """
    plan, is_over = read_board(folder), not holder_in_words(folder)
    if plan is None and not is_over:
        print(f"{folder}: {_state(folder)}; waiting for its first step", flush=True)
    while plan is None and holder_in_words(folder):
        time.sleep(poll_s)
        plan = read_board(folder)
    if plan is None:
        raise UsageError(
            f"{folder} has no record to watch ({_state(folder)}); `tats status {folder}` shows "
            "what is known"
        )
    # A board tells of a run that goes on; of one that is over, its lines say more.
    shown: set[str] = set()
    with make_view("plain" if is_over and mode == "auto" else mode, plan=plan) as view:
        is_over = False
        try:
            while not is_over:
                is_over = not holder_in_words(folder)  # asked first: its last words are shown too
                for event in read_events(folder):
                    # Learners and driver write at their own pace, so not in the order of time.
                    if (key := json.dumps(dict(event), sort_keys=True)) not in shown:
                        shown.add(key)
                        view.on_event(event)
                view.on_tick()
                time.sleep(0.0 if is_over else poll_s)
        except KeyboardInterrupt:
            view.close(f"the run goes on; `tats watch {folder}` shows it again")
            raise
        view.close(f"{folder}: {_state(folder)}")


def _logs(folder: Path) -> str:
    return str(read_run(folder).get("logs") or "")


def _epochs(folder: Path) -> int:
    settings = flat(read_yaml(folder / CONFIG_FILE))
    return int(settings.get("loop.epochs", settings.get("optim.epochs", 0)))


def _state(folder: Path) -> str:
    holder = holder_in_words(folder)
    ended = read_run(folder).get("ended") or {}
    if holder:
        return f"running: {holder}"
    if ended:
        return f"{ended['state']}: {ended['why']}" if ended.get("why") else str(ended["state"])
    if saved_epoch(folder) >= _epochs(folder) > 0:
        return "finished"
    return "not running; it did not say how it ended, so it was probably killed"
