"""Terms of the policy objectives, each against a hand value or torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from tats_ray.ops.losses import (
    advantages,
    approx_kl,
    clip_fraction,
    clipped_surrogate,
    explained_variance,
    group_advantages,
    scored_sum,
    sharpened,
)

SCORED = torch.tensor([[True, False, True], [False, True, False]])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_scored_sum_reduces_over_scored_tokens_first_and_over_clips_then() -> None:
    terms = torch.tensor([[1.0, 100.0, 3.0], [100.0, 5.0, 100.0]])
    assert scored_sum(terms, SCORED, "sum").item() == (4 + 5) / 2
    assert scored_sum(terms, SCORED, "mean").item() == (2 + 5) / 2


def test_term_that_is_not_scored_sends_no_gradient_even_where_it_is_not_finite() -> None:
    terms = torch.tensor([[1.0, math.inf, 3.0], [math.nan, 5.0, 7.0]], requires_grad=True)
    scored_sum(terms, SCORED, "mean").backward()
    assert terms.grad is not None
    assert torch.equal(terms.grad, torch.tensor([[0.25, 0, 0.25], [0, 0.5, 0]]))


def test_raw_advantage_is_reward_minus_the_clips_value_and_0_elsewhere() -> None:
    reward = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = advantages(reward, torch.tensor([0.5, 2.0]), SCORED, "raw")
    assert torch.equal(found, torch.tensor([[0.5, 0.0, 2.5], [0.0, 3.0, 0.0]]))


def test_standardized_advantage_has_mean_0_and_deviation_1_over_all_scored_tokens() -> None:
    scored = noise(4, 9, seed=1) > 0
    found = advantages(3 + 7 * noise(4, 9), noise(4, seed=2), scored, "standardized")
    taken = found[scored].double()
    assert abs(float(taken.mean())) < 1e-6
    assert float((taken**2).mean()) == pytest.approx(1.0, abs=1e-5)
    assert not found[~scored].any()


def test_standardized_advantage_keeps_the_order_and_ignores_a_common_shift_and_scale() -> None:
    reward, value = noise(2, 3, seed=3), noise(2, seed=4)
    form = advantages(reward, value, SCORED, "standardized")
    same = advantages(5 * reward + 2, 5 * value - 1, SCORED, "standardized")
    torch.testing.assert_close(form, same, atol=1e-5, rtol=0)
    raw = advantages(reward, value, SCORED, "raw")
    assert torch.equal(form[SCORED].argsort(), raw[SCORED].argsort())


def test_standardized_advantage_of_equal_rewards_is_0() -> None:
    found = advantages(torch.full((2, 3), 0.7), torch.zeros(2), SCORED, "standardized")
    assert float(found.abs().max()) < 10  # float32 round-off over 1e-8, not infinite
    assert torch.isfinite(found).all()


def test_relative_advantage_has_mean_1_in_each_clip_and_no_baseline() -> None:
    reward = torch.tensor([[1.0, 9.0, 3.0], [9.0, 5.0, 9.0]])
    found = advantages(reward, torch.tensor([123.0, -123.0]), SCORED, "relative")
    assert torch.equal(found, torch.tensor([[0.5, 0.0, 1.5], [0.0, 1.0, 0.0]]))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0, 5.0])
def test_sharpened_advantages_settle_at_the_expected_reward_to_that_power(sharpness: float) -> None:
    """With noisy rewards too: the power is of the mean, not the mean of the power."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([0.4, 0.7, 1.0, 1.3, 1.6])
    noise = 0.5 * torch.rand(20_000, 5, generator=generator) + 0.75
    scored = torch.ones(20_000, 5, dtype=torch.bool)
    noisy = advantages(mean * noise, torch.zeros(20_000), scored, "relative")
    settled = noisy.mean(0) ** sharpness
    old = (settled / settled.sum()).log()
    # The gain is a cross-entropy towards the mean advantage: its slope is that minus pi.
    slope = sharpened(noisy, old.expand_as(noisy), sharpness).mean(0)
    torch.testing.assert_close(slope / slope.sum(), old.exp(), rtol=1e-4, atol=1e-6)


def test_sharpness_1_leaves_advantages_alone() -> None:
    advantage, old = torch.rand(2, 3), torch.randn(2, 3).log_softmax(1)
    assert torch.equal(sharpened(advantage, old, 1.0), advantage)


def test_relative_advantage_limits_itself_where_a_baseline_runs_away() -> None:
    """Its gain is a cross-entropy: at pi in proportion to the advantage the gradient is zero."""
    reward = torch.rand(1, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    scored = torch.ones(1, 6, dtype=torch.bool)

    def slope(advantage: torch.Tensor) -> torch.Tensor:
        logits = advantages(reward, torch.zeros(1), scored, "relative").log().requires_grad_()
        (advantage * logits.log_softmax(1)).sum().backward()
        assert logits.grad is not None
        return logits.grad.abs().max()

    assert slope(advantages(reward, torch.zeros(1), scored, "relative")) < 1e-6
    assert slope(advantages(reward, reward.mean(1), scored, "raw")) > 0.1


def test_relative_advantage_of_negative_rewards_stays_negative() -> None:
    found = advantages(-torch.ones(1, 2), torch.zeros(1), torch.ones(1, 2).bool(), "relative")
    assert torch.equal(found, -torch.ones(1, 2))


@given(ratio=st.floats(0.05, 5), advantage=st.floats(-3, 3), eps=st.floats(0.05, 0.9))
def test_clipped_surrogate_is_the_smaller_of_clipped_and_unclipped_gain(
    ratio: float, advantage: float, eps: float
) -> None:
    found = clipped_surrogate(
        torch.tensor([[math.log(ratio)]]), torch.tensor([[advantage]]), eps
    ).item()
    expected = min(ratio * advantage, min(max(ratio, 1 - eps), 1 + eps) * advantage)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.5, 1.0, False), (0.5, -1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (1.1, 1.0, True)],
)
def test_clipping_stops_the_gradient_only_where_the_ratio_has_gone_far_in_the_wanted_direction(
    ratio: float, advantage: float, moves: bool
) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
    clipped_surrogate(log_ratio, torch.tensor([[advantage]]), 0.2).sum().backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(ratio * advantage if moves else 0.0)


def test_runaway_ratio_gives_a_finite_gain() -> None:
    gain = clipped_surrogate(torch.tensor([[500.0, -500.0]]), torch.tensor([[-1.0, -1.0]]), 0.2)
    assert torch.isfinite(gain).all()


def test_approximate_kl_is_the_exact_divergence_of_old_from_new() -> None:
    old, new = noise(5, 12, seed=5).log_softmax(1), noise(5, 12, seed=6).log_softmax(1)
    expected = kl_divergence(Categorical(logits=old), Categorical(logits=new)).mean()
    torch.testing.assert_close(approx_kl(new - old, old), expected)
    assert approx_kl(old - old, old).item() == 0


def test_explained_variance_is_1_for_the_truth_0_for_a_constant_and_negative_for_worse() -> None:
    target = torch.tensor([1.0, 2.0, 4.0])
    assert explained_variance(target, target).item() == 1.0
    assert explained_variance(target + 3, target).item() == pytest.approx(1.0)  # a shift is free
    assert explained_variance(torch.ones(3), target).item() == pytest.approx(0.0)
    assert explained_variance(-target, target).item() == pytest.approx(-3.0)
    assert explained_variance(target, torch.ones(3)).item() == 0.0


def test_group_advantages_of_numbers_worked_out_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    # Against the mean of the two others: 1 - 4, 2 - 3.5, 6 - 1.5.
    apart = group_advantages(returns, 3, "leave_one_out")
    torch.testing.assert_close(apart, torch.tensor([-3.0, -1.5, 4.5, 0, 0, 0]))
    # Mean 3, deviation sqrt((4 + 1 + 9) / 3).
    scaled = group_advantages(returns, 3, "standardized")
    expected = torch.tensor([-2.0, -1.0, 3.0, 0, 0, 0]) / math.sqrt(14 / 3)
    torch.testing.assert_close(scaled, expected)


def test_standardized_groups_forget_scale_and_shift_and_leave_one_out_keeps_scale() -> None:
    returns = noise(12, seed=8)
    moved = 100 * returns + 7
    same = group_advantages(returns, 4, "standardized")
    torch.testing.assert_close(group_advantages(moved, 4, "standardized"), same, atol=1e-4, rtol=0)
    apart = group_advantages(returns, 4, "leave_one_out")
    torch.testing.assert_close(
        group_advantages(moved, 4, "leave_one_out"), 100 * apart, atol=1e-3, rtol=0
    )


def test_clip_fraction_counts_scored_ratios_outside_the_range() -> None:
    log_ratio = torch.tensor([[1.3, 0.9, 0.7], [1.1, 1.25, 5.0]]).log()
    # Of the scored 1.3, 0.7 and 1.25, all are further than .2 from 1; than .28, two are.
    assert clip_fraction(log_ratio, SCORED, 0.2).item() == pytest.approx(1.0)
    assert clip_fraction(log_ratio, SCORED, 0.28).item() == pytest.approx(2 / 3)
