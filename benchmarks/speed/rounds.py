"""Rounds in which variants take turns, and what may be said of their ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MAX_SPREAD = 0.15
"""Of the rounds' ratios around their median; beyond it the machine was busy with other things."""

Rounds = Sequence[Mapping[str, float]]
"""What each variant took, round by round."""


def take_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """A B A B ...: each round runs every variant once; one round before them is not counted."""
    taken = [{name: run() for name, run in variants.items()} for _ in range(rounds + 1)]
    return taken[1:]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one thing took as another: over the rounds, not of two medians."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(rounds: Rounds, slow: str, fast: str) -> Ratio:
        each = [taken[slow] / taken[fast] for taken in rounds]
        return Ratio(statistics.median(each), min(each), max(each))

    @property
    def spread(self) -> float:
        return (self.most - self.least) / self.median

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.least:.2f}-{self.most:.2f}]"

    def against(self, bar: float, *, is_cost: bool = False) -> str:
        """Whether a bar is reached; of a cost, whether it is not passed."""
        if self.spread > MAX_SPREAD:
            return f"no verdict: the rounds differ by {self.spread:.0%}"
        is_reached = self.median <= bar if is_cost else self.median >= bar
        return "reached" if is_reached else "missed"

    def figures(self) -> list[float]:
        """Median, least and most, as written to files."""
        return [round(value, 3) for value in (self.median, self.least, self.most)]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they must be; the first one to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join(line(row) for row in cells)
