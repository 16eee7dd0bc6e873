"""What a sweep leaves on disk: its settings, and a record and a run folder for every trial.

```
runs/EXP/
    sweep.json          settings, command, commit, what was planned
    trials/NAME/        a run folder, and trial.json: how it ended and what was measured
    report.md best.yaml ...   written by `tats tune report`
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tats_ray.config.differences import deciding, flat
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import replace_text

STATE_FILE = "sweep.json"
RECORD_FILE = "trial.json"
_FREE = ("title", "max_at_once", "names")
"""Fields of a sweep that change none of its trials."""

Status = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Record:
    """One trial, as far as it got."""

    name: str
    values: dict[str, Any]
    seed: int
    status: Status
    reason: str = ""
    """Why it failed or was stopped."""
    measures: dict[str, float] = field(default_factory=dict)
    """`train_error`, and where they could be measured `val_error` and `knn`."""
    epochs: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """`total`, and of that `start` (until the first step), `train` and `knn`."""

    @property
    def is_done(self) -> bool:
        """Whether a resumed sweep keeps it."""
        return self.status in ("finished", "stopped")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    replace_text(path, json.dumps(content, indent=1) + "\n")


def write_record(folder: Path, record: Record) -> None:
    content = asdict(record)
    # JSON has no NaN.
    content["measures"] = {k: v for k, v in record.measures.items() if math.isfinite(v)}
    write_json(folder / RECORD_FILE, content)


def read_record(folder: Path) -> Record | None:
    """None for a trial that never began."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return Record(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error}); remove its folder to rerun it") from None


def read_records(experiment: Path) -> list[Record]:
    """All trials that began, by their folders' names."""
    folders = sorted((experiment / "trials").glob("*/"))
    return [record for record in map(read_record, folders) if record is not None]


def read_state(experiment: Path) -> dict[str, Any]:
    """Settings of a sweep, and where they come from.

    Raises:
        UsageError: where there is no sweep.
    """
    path = experiment / STATE_FILE
    if not path.is_file():
        raise UsageError(f"{experiment} holds no sweep; name a folder that `tats tune` made")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def refuse_other_settings(experiment: Path, now: Mapping[str, Any]) -> None:
    """A sweep goes on as it was begun.

    Raises:
        UsageError: naming what is different.
    """
    before = read_state(experiment)["settings"]
    old, new = _compared(before), _compared(json.loads(json.dumps(now)))
    changed = [
        f"{name} {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise UsageError(
            f"{experiment} was started with other settings: {'; '.join(changed)}; resume with the "
            "old ones, or choose another --name"
        )


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    base = deciding(settings["base"])
    clips = flat(settings["base"])["eval.num_clips"]
    sweep = {k: v for k, v in flat(settings["sweep"]).items() if k.split(".")[0] not in _FREE}
    return {**base, "eval.num_clips": clips, **{f"sweep.{k}": v for k, v in sweep.items()}}


def _short(value: object, longest: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."
