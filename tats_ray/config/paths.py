"""Where the paths of a configuration begin, and the run folder that a configuration lies in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig

CONFIG_FILE = "config.yaml"
RECORD_FILE = "run.json"
"""In a run folder: what its continuations are compared with, and how it ended."""
LISTS = ("data.train_list", "data.val_list")
"""Fields that name lists; in fine-tuning, a folder of data stands for both."""
_MARKS = (RECORD_FILE, "checkpoints/latest")


def config_file(path: str | Path) -> Path:
    """The configuration that a path means: a file, or the one of a run folder."""
    path = Path(path)
    return path / CONFIG_FILE if os.path.isfile(path / CONFIG_FILE) else path  # noqa: PTH113


def is_run_folder(folder: Path) -> bool:
    """Whether a run has begun in it."""
    # Unlike those of Path, these do not raise for a folder of another user or a name too long.
    has_config = os.path.isfile(folder / CONFIG_FILE)  # noqa: PTH113
    return has_config and any(os.path.exists(folder / mark) for mark in _MARKS)  # noqa: PTH110


def put_at_home(raw: dict[str, Any], path: Path) -> None:
    """Let the configuration of a run folder mean that folder, wherever it was moved to."""
    is_named = path.parent.name not in ("", "..")
    folder = path.parent if is_named else Path(absolute(str(path))).parent
    if path.name != CONFIG_FILE or not is_run_folder(folder):
        return
    raw["name"] = folder.name
    raw["checkpoint"] = {**(raw.get("checkpoint") or {}), "folder": str(folder.parent)}


def epochs_field(config: Clustered) -> str:
    """The field that says how long a run is."""
    return "loop.epochs" if isinstance(config, RunConfig) else "optim.epochs"


def start_field(config: Clustered) -> str:
    """The field that names the checkpoint whose weights a run starts from."""
    return "init" if isinstance(config, RunConfig) else "start"


def anchored(config: Clustered) -> Clustered:
    """With absolute paths, so that it means the same in every working directory."""
    data: Any = config.data  # both kinds have these fields
    paths = {
        key: absolute(getattr(data, key)) for key in ("train_list", "val_list", "root", "cache")
    }
    changed: dict[str, Any] = {
        "data": replace(data, **paths),
        "checkpoint": replace(config.checkpoint, folder=absolute(config.checkpoint.folder)),
        start_field(config): absolute(getattr(config, start_field(config))),
    }
    return replace(config, **changed)


def absolute(path: str) -> str:
    """From the working directory; an empty path stays one."""
    return os.path.abspath(path) if path else ""  # noqa: PTH100 - links stay, dots go
