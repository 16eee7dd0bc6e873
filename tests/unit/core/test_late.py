"""Numbers that are read late and all at once, and checks that wait with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from tats_ray.core.late import Brake, LateChecks, LateMetrics, Scalar, expect, fetch, mean, unread
from tats_ray.ops.optim import adamw


def test_numbers_of_several_types_are_fetched_in_their_order() -> None:
    third = torch.tensor(1 / 3)
    found = fetch([2.5, third, torch.tensor(1 / 3, dtype=torch.float64), 7, torch.tensor(True)])
    assert found == [2.5, third.item(), 1 / 3, 7, True]
    assert fetch([]) == []


def test_metrics_are_fetched_once_when_one_is_read_and_not_to_hand_them_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def spy(scalars: Sequence[Scalar]) -> list[float]:
        calls.append(len(scalars))
        return fetch(scalars)

    monkeypatch.setattr("tats_ray.core.late.fetch", spy)
    metrics = LateMetrics({"loss": torch.tensor(0.5), "lr": 1e-3})
    more = LateMetrics({**unread(metrics), "step": 3})
    assert not calls
    assert more == {"loss": 0.5, "lr": 1e-3, "step": 3}
    assert (more["loss"], len(more), calls) == (0.5, 3, [3])


def test_a_mean_stays_where_its_numbers_are() -> None:
    ones = [torch.tensor(1.0), torch.tensor(2.0)]
    found = mean(ones)
    assert isinstance(found, Tensor)
    assert found.dtype == torch.float64
    assert found == 1.5
    assert mean([1.0, 4.0]) == 2.5
    assert mean(ones[:1]) is ones[0]


def failing(text: str) -> Callable[[], Exception]:
    return lambda: ValueError(text)


def test_an_expectation_is_checked_at_once_unless_checks_are_gathered() -> None:
    with pytest.raises(ValueError, match="now"):
        expect(torch.tensor(False), failing("now"))
    checks = LateChecks()
    for step, holds in enumerate((True, False, False)):
        with checks.gather(step):
            expect(torch.tensor(True), failing("never"))
            expect(torch.tensor(holds), failing(f"step {step}"))
    failed = checks.failed()
    assert failed is not None
    error, mark = failed
    assert (str(error), mark) == ("step 1", 1)
    assert checks.failed() is None
    with pytest.raises(ValueError, match="after"):
        expect(torch.tensor(False), failing("after"))


def fused(network: nn.Module) -> torch.optim.Optimizer:
    return adamw(network, lr=0.1, betas=(0.9, 0.95), weight_decay=0.05)


def plain(network: nn.Module) -> torch.optim.Optimizer:
    """One that does not know how to stay where it is."""
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("make", [fused, plain])
def test_a_brake_leaves_weights_and_moments_as_they_were_from_the_first_bad_step_on(
    make: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    network = nn.Linear(3, 2)
    optimizer = make(network)
    brake = Brake()

    def step(slope: float) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, slope)
        brake.step(optimizer, torch.tensor(math.isfinite(slope)))

    def state() -> list[Tensor]:
        slots = [value for slot in optimizer.state.values() for value in slot.values()]
        return [value.clone() for value in (*network.parameters(), *slots)]

    first = state()
    step(1.0)
    before = state()
    assert not any(torch.equal(one, other) for one, other in zip(first[:2], before, strict=False))
    step(math.nan)
    step(1.0)
    assert all(torch.equal(one, other) for one, other in zip(before, state(), strict=True))
