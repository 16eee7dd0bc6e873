"""Small helpers for messages."""

import csv
import io
import math
from collections.abc import Mapping

_NUM_NAMED = 3


def counted(number: float, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `3 classes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number if isinstance(number, int) else f'{number:g}'} {noun}{ending * (number != 1)}"


def first_few(reasons: Mapping[str, str]) -> str:
    """The first names with their reasons, and how many more there are: `a (why), b (why)`."""
    named = [f"{name} ({why})" for name, why in list(reasons.items())[:_NUM_NAMED]]
    more = len(reasons) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def reasons_csv(reasons: Mapping[str, str]) -> str:
    """A table of videos that cannot be read, with reasons."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("path", "reason"), *reasons.items()])
    return text.getvalue()


def decimal(value: float, digits: int) -> str:
    """With so many decimals; more where fewer than `digits` (or two) digits would be left of it."""
    wanted = max(digits, 2)
    if not value or not math.isfinite(value):
        return f"{value:.{digits}f}"
    left = digits + 1 + math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}" if left >= wanted else f"{value:.{wanted}g}"


def byte_size(number: float) -> str:
    """`9.2 GB`, `63 GB`, `420 MB`; at least two digits where there are decimals to show them."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e12, "TB"), (1e9, "GB")) if number >= unit), (1e6, "MB")
    )
    value = number / unit
    return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
