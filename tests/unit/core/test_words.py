"""Numbers and names in messages."""

from __future__ import annotations

import math

import pytest

from tats_ray.core.words import decimal, first_few


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.9921, 3, "0.992"),
        (0.64449, 3, "0.644"),
        (12.3456, 3, "12.346"),
        (0.0042, 3, "0.0042"),
        (0.00004213, 3, "4.21e-05"),
        (-0.0001234, 3, "-0.000123"),
        (0.0, 3, "0.000"),
        (0.5, 2, "0.50"),
        (0.004, 2, "0.004"),
        (31.4, 0, "31"),
        (0.37, 0, "0.37"),
        (math.nan, 3, "nan"),
        (math.inf, 2, "inf"),
    ],
)
def test_no_number_vanishes(value: float, digits: int, text: str) -> None:
    assert decimal(value, digits) == text


def test_only_the_first_few_are_named() -> None:
    assert first_few({"a": "cut"}) == "a (cut)"
    assert first_few(dict.fromkeys("abcde", "cut")) == "a (cut), b (cut), c (cut) and 2 more"
