"""The checkpoint folders of a run: the complete ones, the newest, the best, those to remove.

A folder gets its name when all of it is on disk, and loses its name before any of it goes. So
whenever a process is killed, each `step_...` folder is whole. Names with a dot in front are on
their way in or out; the next save removes those that a killed process left.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

from tats_ray.core.errors import CheckpointError
from tats_ray.core.storage import replace_text, sync_file

LATEST, BEST = "latest", "best"
"""Files that hold the name of a folder."""
STATE_FILE = "state.json"
_FOLDER = re.compile(r"step_\d{8}$")


def find(path: str | Path) -> Path:
    """The checkpoint folder that `path` means: itself, or the newest of a run's folder.

    Args:
        path: a run, its `checkpoints`, one of the folders in it, or its `latest` or `best`.

    Raises:
        CheckpointError: when there is none.
    """
    path = Path(path)
    if (path / STATE_FILE).is_file():
        return path
    if path.name in (LATEST, BEST) and path.is_file():
        named = path.parent / path.read_text().strip()
        if _FOLDER.match(named.name) and (named / STATE_FILE).is_file():
            return named
    root = path if path.name == "checkpoints" or (path / LATEST).is_file() else path / "checkpoints"
    for folder in candidates(root):
        return folder
    raise CheckpointError(
        f"{path} holds no checkpoint; give a run folder, or one of its checkpoints/step_... folders"
    )


def kept(path: str | Path) -> list[Path]:
    """All checkpoints of the run that `path` means, oldest first; arguments as `find`.

    Raises:
        CheckpointError: when there is none.
    """
    root = find(path).parent
    return candidates(root)[::-1]


def candidates(root: Path) -> list[Path]:
    """Folders that a run can go on from, newest first.

    Folders newer than `latest` belong to a future that was given up for an older checkpoint.
    """
    found = {folder.name: folder for folder in _folders(root)}
    for aside in root.glob(".step_*.replaced"):  # killed between taking one away and the next in
        if _FOLDER.match(aside.name[1:-9]):
            found.setdefault(aside.name[1:-9], aside)
    pointer = root / LATEST
    newest = pointer.read_text().strip() if pointer.is_file() else ""
    names = sorted(found, reverse=True)
    if _FOLDER.match(newest):
        names = [name for name in names if name <= newest]
    return [found[name] for name in names if (found[name] / STATE_FILE).is_file()]


def sweep(root: Path) -> None:
    """Remove what killed processes left behind."""
    for left_over in [*root.glob(".step_*.partial"), *root.glob(".step_*.removed")]:
        shutil.rmtree(left_over)
    for aside in root.glob(".step_*.replaced"):
        if (root / aside.name[1:-9]).is_dir():
            shutil.rmtree(aside)
        else:
            aside.rename(root / aside.name[1:-9])


def commit(partial: Path, final: Path) -> None:
    """Give a folder that is on disk its name, and make it the newest."""
    for file in partial.iterdir():
        sync_file(file)
    sync_file(partial)
    aside = final.with_name(f".{final.name}.replaced")
    if final.is_dir():
        final.rename(aside)
    partial.rename(final)
    sync_file(final.parent)
    replace_text(final.parent / LATEST, final.name + "\n")
    shutil.rmtree(aside, ignore_errors=True)


def retire(newest: Path, *, keep_last: int, keep_best: bool) -> None:
    """Keep the last few and the best, and remove the others."""
    root = newest.parent
    # Newer folders belong to a future that was given up: they neither count nor win.
    past = [folder for folder in _folders(root) if folder.name <= newest.name]
    kept = past[-keep_last:]
    best = _best(past) if keep_best else None
    if best is not None:
        kept.append(best)
        replace_text(root / BEST, best.name + "\n")
    else:
        (root / BEST).unlink(missing_ok=True)
    for old in past:
        if old not in kept:
            removed = root / f".{old.name}.removed"
            old.rename(removed)
            shutil.rmtree(removed)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if _FOLDER.match(p.name)) if root.is_dir() else []


def _best(folders: list[Path]) -> Path | None:
    """The folder of the lowest validation error; of equals, the newest."""
    errors = [(error, folder) for folder in folders if (error := _error(folder)) is not None]
    lowest = min((error for error, _ in errors), default=None)
    return next((folder for error, folder in reversed(errors) if error == lowest), None)


def _error(folder: Path) -> float | None:
    """The validation error that was measured at a checkpoint, where one was."""
    try:
        error = json.loads((folder / STATE_FILE).read_text()).get("validation_error")
    except (OSError, ValueError, AttributeError):
        return None  # damaged: no candidate
    return error if isinstance(error, float) and math.isfinite(error) else None
