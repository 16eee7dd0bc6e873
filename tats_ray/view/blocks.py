"""Bars and sparklines made of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_LEVELS = "".join(chr(code) for code in range(0x2581, 0x2589))  # one eighth to a whole, upwards
_EIGHTHS = " " + "".join(chr(code) for code in range(0x258F, 0x2587, -1))  # towards the right
_PLAIN_LEVELS = "_.-=+*#@"


def sparkline(
    values: Sequence[float], width: int, *, min_span: float = 0.0, is_unicode: bool = True
) -> str:
    """The course of `values` in at most `width` characters, from their lowest to their highest.

    Each character is the mean of an equal share of the values.

    Args:
        min_span: a smaller difference does not fill the height: noise is to look flat.
    """
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(part * len(values) / count) for part in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    levels = _LEVELS if is_unicode else _PLAIN_LEVELS
    span = max(min_span, 1e-12)
    if high - low < span:
        # The middle falls on a level, not between two, where noise would flicker.
        return "".join(levels[min(4 + round((m - (low + high) / 2) / span * 7), 7)] for m in means)
    return "".join(levels[round((mean - low) / (high - low) * 7)] for mean in means)


def bar(share: float, width: int, *, is_unicode: bool = True) -> str:
    """A bar of `share` of `width` characters, to an eighth of a character; not padded."""
    share = min(max(share, 0.0), 1.0)
    if not is_unicode:
        return "#" * round(share * width)
    whole, part = divmod(round(share * width * 8), 8)
    return _EIGHTHS[8] * whole + (_EIGHTHS[part] if part else "")
