"""Finished rows: one JSON file each, with what they were made with and by which code."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tats_ray.config.differences import flat
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder, replace_text
from tats_ray.runs.origin import origin

from ..machine import machine
from .plan import StudyRow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "evidence"
CHOICE = ROOT / "benchmarks" / "results" / "evidence_choice.json"
"""What `--choose` measured."""
ROOMS = (
    *(f"tats_ray/{room}" for room in ("algorithms", "core", "data", "evaluation", "models")),
    *(f"tats_ray/{room}" for room in ("ops", "training")),
    "envs",
    "benchmarks/evidence/training.py",
    "benchmarks/evidence/measuring.py",
)
"""What decides the numbers of a row besides its settings."""


@dataclass(frozen=True)
class Finished:
    """A row that was run to its end, or failed."""

    row: StudyRow
    settings: Mapping[str, Any]
    """Fields that decide results, and the data set."""
    code: str
    """Digest of `ROOMS`."""
    results: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    """The error that ended it; then there are no results."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """Commit, version, machine, versions of libraries, start."""

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.row.name}.json"
        make_folder(folder)
        replace_text(path, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")
        return path


def read_rows(folder: Path) -> dict[str, Finished]:
    """Every row of a folder by name.

    Raises:
        UsageError: for a file that is no row.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            raw = json.loads(path.read_text())
            finished = Finished(**{**raw, "row": StudyRow(**raw["row"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is not a row of the study ({error}); delete it") from error
        found[path.stem] = finished
    return found


def to_do(
    rows: Sequence[tuple[StudyRow, Mapping[str, Any]]], done: Mapping[str, Finished], code: str
) -> Iterator[tuple[StudyRow, str]]:
    """Rows that are not finished, with the reason: new, or failed before.

    A row that other code made stays as it is, and the tables count it.

    Args:
        rows: each with its settings of now.

    Raises:
        UsageError: for a row that was finished with other settings.
    """
    for row, settings in rows:
        found = done.get(row.name)
        if found is None:
            yield row, "new"
            continue
        if other := differing(found.settings, settings):
            raise UsageError(
                f"row {row.name} was run with other settings: {other}; undo the change, give the "
                "arm a new name, or delete its file to run it again"
            )
        if found.failed:
            yield row, f"failed before: {found.failed}"


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first setting that is not the same, in words; empty where all are.

    A field that came later had its default before.
    """
    new, defaults = json.loads(json.dumps([new, flat(asdict(RunConfig()))]))
    old = {**{name: defaults[name] for name in defaults.keys() & new.keys()}, **old}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
    return ""


def code_digest() -> str:
    """Changes with every byte of the code that decides a row's numbers."""
    digest = hashlib.sha256()
    for room in ROOMS:
        place = ROOT / room
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def made_here() -> dict[str, str]:
    """Which code, machine and libraries make a row now."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {**origin(), "machine": machine(torch.device("cpu")), **versions}
