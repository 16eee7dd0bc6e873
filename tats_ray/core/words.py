"""Small helpers for messages."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

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


def three(value: float) -> str:
    """With three significant digits: `0.985`, `12.3`, `1,230`, `1.44e-05`, `NaN`, `inf`."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value:g}"
    if value == 0:
        return "0"
    rounded = f"{value:.2e}"
    exponent = int(rounded.partition("e")[2])
    if not -4 <= exponent < 6:
        return rounded
    return f"{float(rounded):,.{max(0, 2 - exponent)}f}"


def told_apart(values: Sequence[float]) -> list[str]:
    """Three significant digits of each at most, or more where two would read the same."""
    texts: list[str] = []
    for digits in range(3, 18):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def byte_size(number: float) -> str:
    """`9.2 GB`, `63 GB`, `420 MB`; at least two digits where there are decimals to show them."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e12, "TB"), (1e9, "GB")) if number >= unit), (1e6, "MB")
    )
    value = number / unit
    return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
