"""The learning rate: end points, rise, fall."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.ops.schedules import warmup_cosine


def rate(step: int, warmup: int = 40, total: int = 200) -> float:
    return warmup_cosine(step, base=1.5e-4, minimum=1e-5, warmup_steps=warmup, total_steps=total)


def test_schedule_starts_at_0_reaches_the_base_after_the_warmup_and_ends_near_the_minimum() -> None:
    assert rate(0) == 0
    assert rate(20) == pytest.approx(0.75e-4)
    assert rate(40) == 1.5e-4
    assert rate(120) == pytest.approx((1.5e-4 + 1e-5) / 2)  # half of the cosine
    last = 1e-5 + 0.5 * (1.5e-4 - 1e-5) * (1 + math.cos(math.pi * 159 / 160))
    assert rate(199) == pytest.approx(last)
    assert last - 1e-5 < 1.5e-4 / 1000
    assert rate(200) == rate(1000) == pytest.approx(1e-5)


def test_schedule_without_warmup_starts_at_the_base() -> None:
    assert rate(0, warmup=0) == 1.5e-4


@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (10, 5), (0, 1)])
def test_schedule_no_longer_than_its_warmup_is_defined_at_every_step(
    warmup: int, total: int
) -> None:
    assert all(0 <= rate(step, warmup, total) <= 1.5e-4 for step in range(20))


@given(warmup=st.integers(0, 50), length=st.integers(1, 200))
def test_schedule_rises_and_then_falls_within_its_bounds(warmup: int, length: int) -> None:
    rates = [rate(step, warmup, warmup + length) for step in range(warmup + length)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert min(rates[warmup:]) >= 1e-5
    assert max(rates) <= 1.5e-4
