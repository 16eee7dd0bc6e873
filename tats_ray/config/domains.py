"""The values over which a sweep varies a field: a range to draw from, or a list."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tats_ray.core.errors import UsageError

Kind = Literal["uniform", "loguniform", "randint", "choice", "grid"]
_INSIDE = 0.382
"""Where in a range its example lies: no whole number, where the ends may be whole."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Values that a field may take.

    Ranges hold both ends. `grid` and `choice` are lists; a grid search takes all of either.
    """

    kind: Kind
    values: tuple[Any, ...]

    @property
    def is_listed(self) -> bool:
        return self.kind in ("choice", "grid")

    def draw(self, rng: random.Random) -> Any:
        """One value; those of ranges with four significant digits, as they are written down."""
        if self.is_listed:
            return rng.choice(self.values)
        low, high = self.values
        if self.kind == "randint":
            return rng.randint(low, high)
        if self.kind == "uniform":
            return self.rounded(rng.uniform(low, high))
        return self.rounded(math.exp(rng.uniform(math.log(low), math.log(high))))

    def rounded(self, value: Any) -> Any:
        """A value as it is written down; those of `uniform` and `loguniform` stay inside."""
        if self.kind not in ("uniform", "loguniform"):
            return value
        low, high = self.values
        return min(max(float(f"{value:.4g}"), low), high)

    def examples(self) -> tuple[Any, ...]:
        """What must load before the first trial: both ends and a value inside, or all values."""
        if self.is_listed or self.kind == "randint":
            return self.values
        low, high = self.values
        return (low, high, low + _INSIDE * (high - low))

    def __str__(self) -> str:
        return f"{self.kind} {', '.join(map(str, self.values))}"


def parse_domain(field: str, raw: object, source: str) -> Domain:
    """`{uniform: [0.1, 0.3]}` and its like.

    Raises:
        UsageError: for an unknown kind, no values, or a range that is none.
    """
    where = f"{source}: {field}"
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise UsageError(f"{where} must be a domain such as {{choice: [1, 2]}}, got {raw!r}")
    ((kind, values),) = raw.items()
    if kind not in get_args(Kind):
        known = ", ".join(get_args(Kind))
        raise UsageError(f"{where}: there is no domain {kind!r}; known: {known}")
    if not isinstance(values, (list, tuple)):
        raise UsageError(f"{where}: {kind} takes a list of values, got {values!r}")
    if not values:
        raise UsageError(
            f"{where}: {kind} has no values; name at least one, or leave the field out"
        )
    if kind in ("choice", "grid"):
        return Domain(kind, tuple(values))
    return Domain(kind, _range(where, kind, values))


def _range(where: str, kind: Kind, values: list[Any] | tuple[Any, ...]) -> tuple[Any, Any]:
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise UsageError(f"{where}: {kind} takes two numbers, got {list(values)!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"{where}: {kind} needs a lower end below the upper end, got {list(values)!r}"
        )
    if kind == "loguniform" and low <= 0:
        raise UsageError(f"{where}: loguniform needs ends above 0, got {list(values)!r}")
    if kind != "randint":
        return low, high
    if not (low.is_integer() and high.is_integer()):
        raise UsageError(f"{where}: randint needs whole numbers, got {list(values)!r}")
    return int(low), int(high)
