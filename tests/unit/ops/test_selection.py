"""Drawing without replacement: its law, against enumeration and against torch.multinomial."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tats_ray.core.errors import NonFiniteError
from tats_ray.ops.selection import (
    draw_visible,
    entropy,
    hidden_indices,
    is_visible,
    mixed_with_uniform,
    plackett_luce_log_prob,
    token_log_prob,
)

PROBABILITIES = (0.4, 0.25, 0.15, 0.1, 0.07, 0.03)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probability_of_draw(draw: tuple[int, ...], probabilities: tuple[float, ...]) -> float:
    """Urn without replacement, by the book."""
    left, result = 1.0, 1.0
    for token in draw:
        result *= probabilities[token] / left
        left -= probabilities[token]
    return result


def inclusion(probabilities: tuple[float, ...], count: int) -> list[float]:
    """Chance of each token to be among `count` drawn, by enumeration of all ordered draws."""
    chance = [0.0] * len(probabilities)
    for draw in permutations(range(len(probabilities)), count):
        for token in draw:
            chance[token] += probability_of_draw(draw, probabilities)
    return chance


def test_enumeration_gives_the_inclusion_probabilities_of_the_method() -> None:
    expected = (0.6908, 0.5151, 0.3326, 0.2283, 0.1623, 0.0709)
    assert inclusion(PROBABILITIES, 2) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_inclusion_frequencies_are_within_three_sigma_of_the_urn_and_of_multinomial(
    count: int,
) -> None:
    draws = 40_000
    log_prob = torch.tensor(PROBABILITIES).log().expand(draws, -1)
    ours = draw_visible(log_prob, count, generator=generator(1))
    theirs = torch.multinomial(log_prob.exp(), count, generator=generator(2))
    for token, chance in enumerate(inclusion(PROBABILITIES, count)):
        sigma = math.sqrt(chance * (1 - chance) / draws)
        found = float((ours == token).any(1).float().mean())
        reference = float((theirs == token).any(1).float().mean())
        assert abs(found - chance) < 3 * sigma
        assert abs(found - reference) < 3 * math.sqrt(2) * sigma


def test_ordered_draws_have_their_plackett_luce_frequencies() -> None:
    draws = 40_000
    log_prob = torch.tensor(PROBABILITIES).log().expand(draws, -1)
    drawn = draw_visible(log_prob, 2, generator=generator(3))
    counts = torch.zeros(6, 6).index_put_(
        (drawn[:, 0], drawn[:, 1]), torch.ones(draws), accumulate=True
    )
    for pair in permutations(range(6), 2):
        chance = probability_of_draw(pair, PROBABILITIES)
        sigma = math.sqrt(chance * (1 - chance) / draws)
        assert abs(float(counts[pair]) / draws - chance) < 4 * sigma  # 30 pairs: 4, not 3


@given(
    batch=st.integers(1, 4),
    tokens=st.integers(1, 40),
    share=st.floats(0, 1),
    spread=st.floats(0, 200),
    seed=st.integers(0, 10**6),
)
def test_draw_has_exactly_k_distinct_tokens_and_the_rest_is_hidden_ascending(
    batch: int, tokens: int, share: float, spread: float, seed: int
) -> None:
    count = max(1, int(share * tokens))
    logits = torch.randn(batch, tokens, generator=generator(seed)) * spread
    visible = draw_visible(token_log_prob(logits), count, generator=generator(seed))
    hidden = hidden_indices(visible, tokens)
    view = is_visible(visible, tokens)
    assert visible.shape == (batch, count)
    for row, left, seen in zip(visible.tolist(), hidden.tolist(), view.tolist(), strict=True):
        assert len(set(row)) == count
        assert left == sorted(set(range(tokens)) - set(row))
        assert [n for n, shown in enumerate(seen) if shown] == sorted(row)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.99])
def test_mixture_with_uniform_is_that_of_the_probabilities(share: float) -> None:
    log_prob = torch.tensor([[0.0, -1.0, -40.0, -math.inf]], dtype=torch.float64).log_softmax(1)
    log_prob.requires_grad_()
    mixed = mixed_with_uniform(log_prob, share)
    expected = (1 - share) * log_prob.detach().exp() + share / 4
    torch.testing.assert_close(mixed.detach().exp(), expected)
    torch.testing.assert_close(mixed.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    if share == 0.25:  # d log m = (1 - share) pi / m d log pi
        (gradient,) = torch.autograd.grad(mixed[0, 0], log_prob)
        part = 0.75 * log_prob[0, 0].exp() / mixed[0, 0].exp()
        torch.testing.assert_close(gradient[0, 0], part.detach())
    assert (mixed is log_prob) == (share == 0)


def test_same_generator_state_gives_the_same_draw() -> None:
    log_prob = torch.zeros(3, 50).log_softmax(1)
    first, again, other = (draw_visible(log_prob, 9, generator=generator(s)) for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_token_of_log_probability_minus_infinity_is_never_drawn_while_others_are_left() -> None:
    log_prob = torch.full((200, 10), -math.inf)
    log_prob[:, 3:8] = 0.0
    drawn = draw_visible(log_prob, 5, generator=generator())
    assert torch.equal(drawn.sort(1).values, torch.arange(3, 8).expand(200, 5))


def test_log_probabilities_are_a_softmax_at_the_temperature() -> None:
    logits = [0.5, -2.0, 3.0]
    for temperature in (0.5, 1.0, 4.0):
        weights = [math.exp(z / temperature) for z in logits]
        expected = torch.tensor([[math.log(w / sum(weights)) for w in weights]])
        torch.testing.assert_close(token_log_prob(torch.tensor([logits]), temperature), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logit_that_is_not_finite_is_an_error_that_names_the_clip(bad: float) -> None:
    logits = torch.zeros(3, 4)
    logits[1, 2] = bad
    with pytest.raises(NonFiniteError, match=r"clips \[1\]"):
        token_log_prob(logits)


def test_entropy_of_known_distributions_is_known() -> None:
    uniform = torch.zeros(1, 1568).log_softmax(1)
    assert entropy(uniform).item() == pytest.approx(math.log(1568), abs=1e-5)
    assert math.log(1568) == pytest.approx(7.35756, abs=5e-6)
    coin = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert entropy(coin).item() == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_probabilities_of_all_ordered_draws_sum_to_one(count: int) -> None:
    draws = torch.tensor(list(permutations(range(4), count)))
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0]).expand(len(draws), -1)
    total = plackett_luce_log_prob(logits, draws).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_log_probability_of_a_draw_is_that_of_the_urn_and_depends_on_its_order() -> None:
    draws = list(permutations(range(6), 3))
    logits = (torch.tensor(PROBABILITIES).log() + 1.7).expand(len(draws), -1)  # unnormalised
    found = plackett_luce_log_prob(logits, torch.tensor(draws))
    expected = [math.log(probability_of_draw(draw, PROBABILITIES)) for draw in draws]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert found[draws.index((0, 1, 5))] > found[draws.index((5, 1, 0))]


def test_gradient_of_a_draw_is_chosen_minus_expected_summed_over_the_urns() -> None:
    logits = torch.randn(2, 7, dtype=torch.float64, generator=generator(6), requires_grad=True)
    draw = torch.tensor([[4, 0, 6], [1, 2, 3]])
    plackett_luce_log_prob(logits, draw).sum().backward()
    expected = torch.zeros_like(logits)
    for row in range(2):
        urn = list(range(7))
        for token in draw[row].tolist():
            expected[row, token] += 1
            expected[row, urn] -= logits[row, urn].softmax(0)
            urn.remove(token)
    assert isinstance(logits.grad, Tensor)
    torch.testing.assert_close(logits.grad, expected.detach(), atol=1e-12, rtol=0)


def test_draw_of_hundreds_of_tokens_has_a_finite_log_probability_and_gradient() -> None:
    logits = torch.randn(1, 1568, generator=generator(7), requires_grad=True)
    draw = draw_visible(logits.detach(), 157, generator=generator(8))
    value = plackett_luce_log_prob(logits, draw)
    value.sum().backward()
    assert -1300 < value.item() < -1000  # some 157 x ln 1568, less what preference adds
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
