"""What a run folder keeps besides checkpoints and metrics: its videos, its length, its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.folders import candidates
from tats_ray.config.differences import flat
from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.load import dump_config, read_yaml
from tats_ray.config.paths import (
    CONFIG_FILE,
    RECORD_FILE,
    absolute,
    anchored,
    epochs_field,
    start_field,
)
from tats_ray.core.storage import replace_text
from tats_ray.data.clip_lists import Lists
from tats_ray.view.progress import BoardPlan

VIDEOS_FILE = "videos.json"
"""The entries of both lists as the run began with them."""
_FIRST = "step_00000000"


def record_start(folder: Path, config: Clustered, lists: Lists) -> None:
    """Write down settings and videos of a run, so that it goes on from any working directory."""
    (folder / CONFIG_FILE).write_text(dump_config(anchored(config)))
    if not (has_videos(folder) and begun(folder)):
        replace_text(folder / VIDEOS_FILE, json.dumps(_videos(config, lists)) + "\n")
    _update(folder, settings=movable(config), ended=None, logs="")


def begun(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first, but for the weights that it starts from (`init`)."""
    found = candidates(folder / "checkpoints")
    if [path.name for path in found] == [_FIRST] and read_yaml(found[0] / CONFIG_FILE).get("init"):
        return []
    return found


def record_board(folder: Path, plan: BoardPlan) -> None:
    """Write down the sizes of a run, for those who watch it from elsewhere."""
    _update(folder, board=asdict(plan))


def read_board(folder: Path) -> BoardPlan | None:
    """The sizes of a run; None where it has not begun to train, or is of version 0.1."""
    found = read_run(folder).get("board")
    return BoardPlan(**found) if found else None


def record_end(folder: Path, state: str, why: str = "") -> None:
    """Write down how a run ended: finished, stopped or failed; best effort."""
    with suppress(OSError):
        _update(folder, ended={"state": state, "why": why, "time": time.time()})


def record_logs(folder: Path, place: str) -> None:
    """Write down where the processes of a run write their logs; best effort."""
    with suppress(OSError):
        _update(folder, logs=place)


def read_run(folder: Path) -> dict[str, Any]:
    """`settings`, `ended`, `logs` and `board`; empty for a run of version 0.1."""
    return _read(folder / RECORD_FILE)


def movable(config: Clustered) -> dict[str, Any]:
    """The deciding fields that a checkpoint's own configuration may say otherwise.

    An extension changes the number of epochs, and another working directory a relative path.
    """
    fields = flat(asdict(anchored(config)))
    return {name: fields[name] for name in (epochs_field(config), start_field(config))}


def has_videos(folder: Path) -> bool:
    """Whether the run knows its videos themselves, and not only the names of its lists."""
    return (folder / VIDEOS_FILE).is_file()


def other_videos(folder: Path, config: Clustered, lists: Lists) -> str:
    """What is different about the videos of a run that goes on; empty where they are the same.

    Files may have moved: an entry is the same where its path is, below the root folder, or below
    the one that all entries share, or as a whole.
    """
    found = _read(folder / VIDEOS_FILE)
    for name, new in _videos(config, lists).items():
        pairs = list(zip_longest(_names(found.get(name, new)), _names(new)))
        wrong = [
            (old, now)
            for old, now in pairs
            if not (old and now and any(a == b for a, b in zip(old, now, strict=True)))
        ]
        if wrong:
            was, now = (" ".join(side[0].split("\t")) if side else "none" for side in wrong[0])
            return (
                f"{getattr(config.data, name) or f'data.{name}'} differs from the list that the "
                f"run began with in {len(wrong)} of {len(pairs)} entries, first {was} -> {now}"
            )
    return ""


def _videos(config: Clustered, lists: Lists) -> dict[str, Any]:
    """By list: the root folder, and paths below it (or whole ones) with their labels."""
    data, found = config.data, {}
    for name, listed in (("train_list", lists.train), ("val_list", lists.val)):
        root = absolute(data.root or str(Path(getattr(data, name)).parent))
        entries = [(os.path.relpath(absolute(e.path), root), e.label) for e in listed]
        found[name] = {"root": root, "entries": entries}
    return found


def _names(videos: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Names of each entry with its label: below the root, below the common folder, whole."""
    root, entries = videos["root"], videos["entries"]
    whole = [os.path.normpath(os.path.join(root, path)) for path, _ in entries]  # noqa: PTH118
    common = os.path.commonpath([str(Path(path).parent) for path in whole]) if whole else ""
    return [
        tuple(f"{name}\t{label}" for name in (path, os.path.relpath(full, common), full))
        for (path, label), full in zip(entries, whole, strict=True)
    ]


def _update(folder: Path, **parts: Any) -> None:
    record = read_run(folder) | parts
    replace_text(folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
