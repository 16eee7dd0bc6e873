"""The points of a sweep and the trials they make, all known before the first one starts."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tats_ray.config.sweep_schema import Sweep
from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import derive

_EXTRAS = ("paper", "row", "note")


@dataclass(frozen=True)
class Point:
    """Values of the varied fields."""

    name: str
    """`m_o=10 k=1`."""
    values: dict[str, Any]
    row: str = ""
    """What the paper calls it, where that differs from the values."""
    paper: tuple[float, ...] = ()
    """What the paper prints for it; two values where it prints the row twice."""
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """A point with a seed: one run."""

    name: str
    point: Point
    seed: int

    @property
    def folder(self) -> str:
        """A name for a folder that needs no quotes."""
        return re.sub(r"[^\w.=+-]+", "_", self.name)


def points(sweep: Sweep) -> list[Point]:
    """In the order in which they are tried; none for tpe, which finds them as it goes.

    Raises:
        UsageError: for a bad row, or a value that its field cannot have.
    """
    search = sweep.config.search
    if search == "tpe":
        return []
    if search == "table":
        found = [_row(sweep, number, row) for number, row in enumerate(sweep.config.table, start=1)]
    else:
        drawn = _grid(sweep) if search == "grid" else _draws(sweep)
        found = [Point(point_name(values, sweep), values) for values in drawn]
    seen: dict[str, Point] = {}
    for point in found:
        twin = seen.setdefault(str(point.values), point)
        if twin is not point:
            raise UsageError(
                f"{sweep.source}: {point.name} appears twice; keep one row, with both printed "
                "values as `paper: [A, B]`"
            )
        sweep.run_config(point.values, source=f"{sweep.source}: {point.name}")
    return found


def trials(found: Sequence[Point], seeds: Sequence[int]) -> list[Trial]:
    """Seed by seed, so that a sweep that is stopped has whole tables."""
    several = len(seeds) > 1
    return [
        Trial(f"{point.name} seed={seed}" if several else point.name, point, seed)
        for seed in seeds
        for point in found
    ]


def point_name(values: Mapping[str, Any], sweep: Sweep) -> str:
    """Short names of the fields with their values."""
    short = {dotted: name for name, dotted in sweep.config.names.items()}
    last = [dotted.rsplit(".", 1)[-1] for dotted in values]
    parts = []
    for dotted, value in values.items():
        own = dotted.rsplit(".", 1)[-1]
        name = short.get(dotted, own if last.count(own) == 1 else dotted)
        parts.append(f"{name}={f'{value:g}' if isinstance(value, float) else value}")
    return " ".join(parts)


def _row(sweep: Sweep, number: int, row: Mapping[str, Any]) -> Point:
    names = sweep.config.names
    where = f"{sweep.source}: row {number} of table"
    missing = [name for name in names if name not in row]
    unknown = [name for name in row if name not in names and name not in _EXTRAS]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        known = ", ".join([*names, *_EXTRAS])
        raise UsageError(f"{where} {what}; its columns are {known}")
    printed = row.get("paper", [])
    try:
        paper = tuple(float(v) for v in (printed if isinstance(printed, list) else [printed]))
    except (TypeError, ValueError):
        raise UsageError(
            f"{where}: paper must be a number or a list of numbers, got {printed!r}"
        ) from None
    values = {dotted: row[name] for name, dotted in names.items()}
    about = {"row": str(row.get("row", "")), "note": str(row.get("note", ""))}
    return Point(point_name(values, sweep), values, paper=paper, **about)


def _grid(sweep: Sweep) -> Iterable[dict[str, Any]]:
    domains = sweep.config.domains
    for values in itertools.product(*(domain.values for domain in domains.values())):
        yield dict(zip(domains, values, strict=True))


def _draws(sweep: Sweep) -> Iterable[dict[str, Any]]:
    """Each draw has a stream of its own, so that a longer search begins with the shorter one."""
    seen: set[str] = set()
    wanted, tried = sweep.config.num_samples, 0
    while len(seen) < wanted:
        rng = random.Random(derive(sweep.config.search_seed, "sweep", tried))
        values = {name: domain.draw(rng) for name, domain in sweep.config.domains.items()}
        tried += 1
        if tried > 100 * wanted:
            raise UsageError(
                f"{sweep.source}: the space has fewer than num_samples {wanted} points "
                f"({len(seen)} found); lower it, or use search grid"
            )
        if str(values) not in seen:
            seen.add(str(values))
            yield values
