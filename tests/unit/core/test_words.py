"""Numbers, nouns and names in messages: one epoch is not `1 epochs`, anywhere."""

from __future__ import annotations

import ast
import math
import re
from itertools import pairwise

import pytest

from tats_ray.core.words import counted, first_few, three, told_apart
from tests.test_layers import SOURCES, room

NOUNS = (
    "classes clips cores CPUs epochs events GPUs heads learners lists machines nodes ranks "
    "rollouts seeds steps threads trials updates videos workers"
)
PLURAL = re.compile(rf" (?:{'|'.join(NOUNS.split())})\b(?!/)")


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "epoch", "0 epochs"),
        (1, "epoch", "1 epoch"),
        (1.0, "epoch", "1 epoch"),
        (2.5, "epoch", "2.5 epochs"),
        (2, "class", "2 classes"),
        (1_234_567, "step", "1234567 steps"),
    ],
)
def test_noun_has_the_form_of_its_number(number: float, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected


def plurals(source: str) -> list[str]:
    """Nouns that stand in a text right behind a number, whatever the number is."""
    found = []
    for text in ast.walk(ast.parse(source)):
        if isinstance(text, ast.JoinedStr):
            for value, after in pairwise(text.values):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                    match = PLURAL.match(str(after.value))
                    found += [f"{{{ast.unparse(value.value)}}}{match[0]}"] if match else []
    return found


def test_plural_behind_a_number_is_found_across_lines() -> None:
    assert plurals('f"a {n} " f"epochs {m} steps/s {k} steps"') == ["{n} epochs", "{k} steps"]


@pytest.mark.parametrize("name", [n for n in SOURCES if room(n) != "benchmarks"])
def test_texts_count_with_counted(name: str) -> None:
    rare = {"{stale} updates", "{steps} steps"}  # an assertion; two or more, by the line before it
    assert set(plurals(SOURCES[name].read_text())) <= rare


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9921, "0.992"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (12.3456, "12.3"),
        (999.6, "1,000"),
        (31415.9, "31,400"),
        (2.5e6, "2.50e+06"),
        (0.0042, "0.00420"),
        (0.00004213, "4.21e-05"),
        (-0.0001234, "-0.000123"),
        (0.0, "0"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_number_has_three_significant_digits(value: float, text: str) -> None:
    assert three(value) == text
    if math.isfinite(value):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005)


def test_ticks_of_an_axis_differ() -> None:
    assert told_apart([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert told_apart([0.9985, 0.999, 0.9995]) == ["0.9985", "0.999", "0.9995"]


def test_only_the_first_few_are_named() -> None:
    assert first_few({"a": "cut"}) == "a (cut)"
    assert first_few(dict.fromkeys("abcde", "cut")) == "a (cut), b (cut), c (cut) and 2 more"
