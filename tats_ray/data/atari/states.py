"""True states: numbers for every frame of a video, such as places of objects, stored beside it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError


def states_path(video: Path | str) -> Path:
    """Where the states of `video` are stored: `a/b.mp4` -> `a/b.states.csv`."""
    return Path(video).with_suffix(".states.csv")


def write_states(video: Path | str, states: Mapping[str, Float[np.ndarray, " F"]]) -> None:
    """Store a table beside `video`: a column for each value, a row for each frame.

    A cell is empty where a value is not known, as the place of an object that is not there.
    """
    rows = zip(*states.values(), strict=True)
    lines = [",".join(states)]
    lines += [",".join("" if np.isnan(value) else f"{value:g}" for value in row) for row in rows]
    states_path(video).write_text("".join(f"{line}\n" for line in lines))


def read_states(video: Path | str) -> dict[str, Float[np.ndarray, " F"]] | None:
    """The stored values of every frame of `video`; NaN where unknown, None where none is stored.

    Raises:
        UsageError: for a file that is no such table.
    """
    path = states_path(video)
    if not path.is_file():
        return None
    try:
        with path.open(newline="") as stored:
            names, *rows = csv.reader(stored)
        table = np.array([[float(cell or "nan") for cell in row] for row in rows])
        return dict(zip(names, table.reshape(-1, len(names)).T, strict=True))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a table of states ({error}); make it again") from error
