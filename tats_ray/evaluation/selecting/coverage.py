"""How windows of a clip's size cover a whole video, and how what they say is merged.

Each window is a competition of its own: its probabilities sum to one, whatever it shows. They are
counted in multiples of the uniform probability, 1 / N, so that windows can be compared, and a place
that several windows see gets the mean of them. A window in which nothing stands out adds about 1
everywhere; one in which something does adds much there and less than 1 elsewhere.

In time windows overlap by half. In space they are squares of the short side, as few as cover the
long side, placed on one lattice of tokens: the picture is stretched along the long side, by half a
token at most, to a whole number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from tats_ray.core.arrays import Float
from tats_ray.core.grid import TokenGrid

ROUNDING = 1e-4
"""Of multiples of uniform: no preference."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """The tokens of a picture of `width` x `height` pixels, `rows` x `columns`."""

    grid: TokenGrid
    width: int
    height: int

    @property
    def rows(self) -> int:
        return self._along(self.height)

    @property
    def columns(self) -> int:
        return self._along(self.width)

    def _along(self, length: int) -> int:
        return max(1, round(length / min(self.width, self.height) * self.grid.side))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels, of what the network sees of the whole picture."""
        return self.rows * self.grid.patch, self.columns * self.grid.patch

    def corners(self) -> list[tuple[int, int]]:
        """(row, column) of the first token of each square window."""
        rows, columns = (_spread(count, self.grid.side) for count in (self.rows, self.columns))
        return [(row, column) for row in rows for column in columns]

    def box(self, row: int, column: int, last_row: int, last_column: int) -> list[int]:
        """Left, top, right and bottom, pixels, of the tokens from the first to the last."""
        x, y = self.width / self.columns, self.height / self.rows
        return [
            round(column * x),
            round(row * y),
            round((last_column + 1) * x),
            round((last_row + 1) * y),
        ]


def _spread(count: int, side: int) -> list[int]:
    """Starts of the fewest windows of `side` that cover `count`, evenly spread."""
    number = ceil(count / side)
    return [round(i * (count - side) / max(number - 1, 1)) for i in range(number)]


class Merged:
    """The mean of what all windows say of each time slot, row and column."""

    def __init__(self, lattice: Lattice) -> None:
        self._lattice = lattice
        self._sums: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    def add(self, start: int, corner: tuple[int, int], heat: Float[np.ndarray, "t h w"]) -> None:
        """Take a window that begins at time slot `start`, in multiples of uniform."""
        (row, column), (time, height, width) = corner, heat.shape
        shape = self._lattice.rows, self._lattice.columns
        while len(self._sums) < start + time:
            self._sums.append(np.zeros(shape))
            self._counts.append(np.zeros(shape))
        for slot in range(time):
            place = np.s_[row : row + height, column : column + width]
            self._sums[start + slot][place] += heat[slot]
            self._counts[start + slot][place] += 1

    def heat(self) -> Float[np.ndarray, "T rows columns"]:
        """In multiples of uniform; about 1 on average."""
        return np.stack(self._sums) / np.stack(self._counts)


def most_probable(heat: Float[np.ndarray, "T rows columns"], share: float) -> np.ndarray:
    """Whether each token beats chance, and is among this share of all, the most probable."""
    count = max(1, round(share * heat.size))
    kept = np.zeros(heat.size, bool)
    kept[np.argsort(-heat, axis=None, kind="stable")[:count]] = True
    return kept.reshape(heat.shape) & (heat > 1 + ROUNDING)


def apart(scores: Float[np.ndarray, " T"], k: int) -> list[int]:
    """The `k` best slots, best first, none closer than half of an even spacing, T / 2k.

    There are always enough of them: each bars fewer than T / k slots.
    """
    gap = max(1, len(scores) // (2 * k))
    chosen: list[int] = []
    for slot in np.argsort(-scores, kind="stable"):
        if all(abs(int(slot) - other) >= gap for other in chosen):
            chosen.append(int(slot))
        if len(chosen) == k:
            break
    return chosen


def connected(kept: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """The tokens of a picture that are kept, in groups that touch along an edge."""
    left = {(int(row), int(column)) for row, column in np.argwhere(kept)}
    while left:
        group, edge = [], [min(left)]
        left.discard(edge[0])
        while edge:
            row, column = edge.pop()
            group.append((row, column))
            beside = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
            edge += sorted(beside & left)
            left -= beside
        yield group
