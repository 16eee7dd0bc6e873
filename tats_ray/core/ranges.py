"""Ranges of configuration fields, as types: `epochs: AtLeastOne = 200`.

`ConfigBase` checks them whenever a configuration is made, by pydantic from a file or by a caller in
Python. So both get the same message, and training needs no configuration library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_type_hints

from tats_ray.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers a field may have; `words` follow "must be" in the message."""

    words: str
    holds: Callable[[float], bool]


AtLeastTwo = Annotated[int, Range("at least 2", lambda value: value >= 2)]
AtLeastOne = Annotated[int, Range("at least 1", lambda value: value >= 1)]
Count = Annotated[int, Range("0 or more", lambda value: value >= 0)]
NotNegative = Annotated[float, Range("0 or more", lambda value: value >= 0)]
Positive = Annotated[float, Range("positive", lambda value: value > 0)]
Share = Annotated[float, Range("inside [0, 1]", lambda value: 0 <= value <= 1)]
ShareAboveZero = Annotated[float, Range("inside (0, 1]", lambda value: 0 < value <= 1)]
ShareBelowOne = Annotated[float, Range("inside [0, 1)", lambda value: 0 <= value < 1)]
ShareBetween = Annotated[float, Range("inside (0, 1)", lambda value: 0 < value < 1)]


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Refuse a field's value in the words that every field uses.

    Raises:
        UsageError: unless the condition holds.
    """
    if not condition:
        raise UsageError(f"{name} must be {rule}, got {value!r}")


def check_ranges(config: Any, prefix: str) -> None:
    """Refuse the first field that is outside its range; `prefix` stands before its name.

    Raises:
        UsageError: with field, range and value.
    """
    for name, allowed in _ranges(config.__class__):
        value = getattr(config, name)
        require(allowed.holds(value), prefix + name, value, allowed.words)


@cache
def _ranges(cls: type[Any]) -> tuple[tuple[str, Range], ...]:
    hints = get_type_hints(cls, include_extras=True)
    found = [(name, getattr(hint, "__metadata__", ())) for name, hint in hints.items()]
    return tuple((name, mark) for name, marks in found for mark in marks if isinstance(mark, Range))
