"""The table of a sweep: its rows, the paper's numbers, and their summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.core.words import three
from tats_ray.ops.ranks import binned, explained_share, kendall, spearman
from tats_ray.sweeps.sweep_folder import Record, read_records, read_state

MEASURES = {"train_error": "train error", "val_error": "validation error", "knn": "kNN %"}
"""In the order of the columns."""


@dataclass(frozen=True)
class Row:
    """A point with the results of its trials."""

    name: str
    paper: tuple[float, ...]
    note: str
    values: dict[str, Any]
    records: list[Record]

    def measured(self, measure: str) -> list[float]:
        return [
            record.measures[measure]
            for record in self.records
            if record.status == "finished" and measure in record.measures
        ]

    def mean(self, measure: str) -> float:
        found = self.measured(measure)
        return float(np.mean(found)) if found else math.nan

    def spread(self, measure: str) -> float:
        """Standard deviation over seeds; NaN for one."""
        found = self.measured(measure)
        return float(np.std(found, ddof=1)) if len(found) > 1 else math.nan

    def cell(self, measure: str) -> str:
        if not self.measured(measure):
            return "-"
        scale = 100 if measure == "knn" else 1
        text = three(scale * self.mean(measure))
        spread = self.spread(measure)
        return text if math.isnan(spread) else f"{text} +- {three(scale * spread)}"

    @property
    def state(self) -> str:
        """What is not finished, and why."""
        odd = [record for record in self.records if record.status != "finished"]
        words = [f"{record.status}: {record.reason}".rstrip(": ") for record in odd]
        return "; ".join(dict.fromkeys(words)) or ("" if self.records else "not run")


@dataclass(frozen=True)
class Table:
    """All rows of a sweep, and the best one."""

    state: Mapping[str, Any]
    rows: list[Row]

    @property
    def metric(self) -> str:
        return str(self.state["settings"]["sweep"]["metric"])

    @property
    def is_best_lowest(self) -> bool:
        return self.metric != "knn"

    def best(self) -> Row | None:
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def ranked(self) -> list[Row]:
        """Best first, those without the measure left out."""
        sign = 1 if self.is_best_lowest else -1
        known = [row for row in self.rows if row.measured(self.metric)]
        return sorted(known, key=lambda row: sign * row.mean(self.metric))

    def paper_best(self) -> Row | None:
        printed = [row for row in self.rows if row.paper]
        return min(printed, key=lambda row: min(row.paper), default=None)

    def correlations(self, measure: str) -> tuple[float, float, int]:
        """Spearman, Kendall and the number of rows behind them; kNN counts as an error, negated.

        A row that the paper prints with two values says nothing about an order.
        """
        both = [row for row in self.rows if len(row.paper) == 1 and row.measured(measure)]
        paper = np.array([row.paper[0] for row in both])
        ours = np.array([row.mean(measure) for row in both])
        ours = -ours if measure == "knn" else ours
        if len(both) < 3:
            return math.nan, math.nan, len(both)
        return spearman(paper, ours), kendall(paper, ours), len(both)


def read_table(experiment: Path) -> Table:
    """Rows in the order of the sweep; of a search, those that were tried."""
    state = read_state(experiment)
    records = read_records(experiment)
    points = state["points"] or [{"name": r.name, "values": r.values} for r in records]
    rows = [
        Row(
            name=point.get("row") or point["name"],
            paper=tuple(point.get("paper", ())),
            note=point.get("note", ""),
            values=point["values"],
            records=[r for r in records if r.values == point["values"]],
        )
        for point in points
    ]
    return Table(state, rows)


def importance(table: Table) -> dict[str, float]:
    """Share of the variance of the measure that each field's groups explain; of searches only."""
    if any(row.paper for row in table.rows):
        return {}
    rows = table.ranked()
    ours = np.array([row.mean(table.metric) for row in rows])
    found = {}
    for name in rows[0].values if rows else ():
        groups, _ = binned([row.values[name] for row in rows])
        share = explained_share(groups, ours)
        if not math.isnan(share):
            found[name] = share
    return dict(sorted(found.items(), key=lambda item: -item[1]))
