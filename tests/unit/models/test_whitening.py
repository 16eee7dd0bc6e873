"""Whitened tokens against numpy's covariance and the identities that define them."""

from __future__ import annotations

import numpy as np
import torch

from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.whitening import Whitening
from tats_ray.models.zoo import build_policy

WIDTH = 6
GRID = TokenGrid(num_frames=4, image_size=16, patch=8)


def correlated(seed: int, num_clips: int = 40) -> torch.Tensor:
    """Tokens of very unequal, rotated directions and a mean far from zero."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator()))[0]
    sizes = torch.tensor([6.0, 4.0, 2.0, 1.0, 0.5, 0.3])
    return torch.randn(num_clips, 8, WIDTH, generator=generator) * sizes @ turned + 20.0


def moments(tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = tokens.flatten(0, 1).double().numpy()
    return rows.mean(0), np.cov(rows.T, bias=True)


def test_tokens_pass_unchanged_before_anything_was_observed() -> None:
    tokens = correlated(0)
    assert torch.equal(Whitening(WIDTH)(tokens), tokens)


def test_what_was_observed_becomes_white() -> None:
    whitening = Whitening(WIDTH)
    tokens = correlated(0, num_clips=500)
    whitening.observe(tokens)
    mean, covariance = moments(whitening(tokens))
    np.testing.assert_allclose(mean, 0.0, atol=1e-4)
    # The floor takes 3e-4 * 57 of the smallest direction's 0.09: some 16 %, and 1e-3 of the rest.
    values = np.linalg.eigvalsh(covariance)
    np.testing.assert_allclose(values[-4:], values[-1], rtol=0.03)
    assert 0.8 < values[0] / values[-1] < 0.9
    np.testing.assert_allclose(np.trace(covariance) / WIDTH, 1.0, rtol=1e-4)


def test_statistics_of_batches_are_those_of_all_together() -> None:
    whitening = Whitening(WIDTH)
    batches = [correlated(seed) + seed for seed in range(5)]
    for batch in batches:
        whitening.observe(batch)
    mean, covariance = moments(torch.cat(batches))
    np.testing.assert_allclose(whitening.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(whitening.covariance.numpy(), covariance, rtol=1e-4, atol=1e-4)


def test_old_batches_are_forgotten() -> None:
    """The tokenizer goes on learning: after many batches only recent ones count."""
    whitening = Whitening(WIDTH)
    for _ in range(3):
        whitening.observe(correlated(0) + 100.0)
    for seed in range(200):
        whitening.observe(correlated(seed))
    # A mean over all 203 batches would be 21.5.
    np.testing.assert_allclose(whitening.mean.numpy(), 20.0, atol=0.3)


def test_turned_tokens_come_out_turned_and_else_the_same() -> None:
    """The symmetric root is the only one of which this holds: no direction is preferred."""
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3)))[0]
    plain, turned = Whitening(WIDTH), Whitening(WIDTH)
    tokens = correlated(0)
    plain.observe(tokens)
    turned.observe(tokens @ turn)
    torch.testing.assert_close(turned(tokens @ turn), plain(tokens) @ turn, atol=1e-3, rtol=0)


def test_directions_without_variance_are_not_blown_up() -> None:
    tokens = correlated(0)
    tokens[..., 0] = 1.0
    tokens[..., 1] *= 1e-6
    whitening = Whitening(WIDTH)
    whitening.observe(tokens)
    out = whitening(tokens)
    assert torch.isfinite(out).all()
    assert out[..., :2].abs().amax() < 0.1


def test_tokens_that_are_all_the_same_stay_finite() -> None:
    whitening = Whitening(WIDTH)
    whitening.observe(torch.full((2, 8, WIDTH), 3.0))
    assert torch.isfinite(whitening(torch.full((2, 8, WIDTH), 3.0))).all()


def test_a_policy_keeps_its_statistics_with_its_weights() -> None:
    def policy() -> SamplerPolicy:
        made = build_policy(
            SamplerConfig(whiten_tokens=True), ModelConfig(size="tiny"), GRID, seed=0
        )
        assert isinstance(made, SamplerPolicy)
        return made

    first, second = policy(), policy()
    tokens = 10.0 * torch.randn(4, GRID.num_tokens, 128, generator=torch.Generator().manual_seed(0))
    torch.nn.init.ones_(first.sampler.actor.weight)
    first.observe(tokens)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.evaluate(tokens).log_prob, second.evaluate(tokens).log_prob)
    assert len(list(first.parameters())) == len(list(policy().parameters()))
    second.observe(tokens + 5.0)
    assert not torch.equal(first.evaluate(tokens).log_prob, second.evaluate(tokens).log_prob)
