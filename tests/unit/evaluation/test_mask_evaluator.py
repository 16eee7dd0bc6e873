"""What is measured on validation clips: the same draws every time, and known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Evaluation, Selection
from tats_ray.evaluation.mask_evaluator import Evaluator, ValidationSet
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.ops.measures import collapse_signs
from tats_ray.ops.patches import normalized_targets, patchify
from tests.conftest import small_mae


def validation(moving: Tensor | None = None) -> ValidationSet:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(256, (5, 3, 4, 16, 16), generator=generator, dtype=torch.uint8)
    return ValidationSet(clips, moving)


class Stubborn:
    """A policy that always shows tokens 0 to 7, and is sure of it."""

    def evaluate(self, tokens: Tensor) -> Evaluation:
        raise AssertionError("measuring draws; it does not train")

    def act(self, tokens: Tensor, num_visible: int, *, generator: torch.Generator) -> Selection:
        log_prob = torch.where(torch.arange(32) < num_visible, 0.0, -50.0).log_softmax(0)
        batch = len(tokens)
        shown = torch.arange(num_visible).expand(batch, -1)
        return Selection(shown, log_prob.expand(batch, -1), torch.zeros(batch))


def test_error_is_measured_under_the_same_draws_in_every_run_and_round(
    mae: MaskedAutoencoder, policy: SamplerPolicy
) -> None:
    first = Evaluator(validation(), 8, batch_size=2)
    found = first.measure(mae, policy)
    torch.manual_seed(99)
    again = Evaluator(validation(), 8, batch_size=2).measure(mae, policy)
    assert again == found
    # Also where a run was resumed, and measures for the first time what it had measured before.
    assert first.measure(mae, policy) == found
    assert found["own_error"] != found["error"]


def test_errors_are_means_over_all_clips_also_when_the_last_batch_is_smaller(
    mae: MaskedAutoencoder,
) -> None:
    data = validation()
    found = Evaluator(data, 8, batch_size=2).measure(mae, Stubborn())
    with torch.no_grad():
        expected = mae(data.clips, torch.arange(8).expand(5, -1)).loss.item()
    assert found["own_error"] == pytest.approx(expected, rel=1e-5)


def test_error_of_predicting_the_mean_is_that_of_the_other_clips_mean() -> None:
    """Written out: the unbiased variance of each target between the clips, over all places."""
    data = validation()
    for normalize in (False, True):
        plain = small_mae()
        plain.normalize_targets = normalize
        found = Evaluator(data, 8, batch_size=2).measure(plain, FixedPolicy(plain.grid))
        pixels = patchify(data.clips, plain.grid).double() / 255
        targets = normalized_targets(pixels) if normalize else pixels
        assert found["mean_error"] == pytest.approx(targets.var(0).mean().item(), rel=1e-5)
    alone = ValidationSet(data.clips[:1], None)
    assert "mean_error" not in Evaluator(alone, 8, batch_size=2).measure(plain, Stubborn())


def test_tokens_that_carry_error_are_counted_under_random_masks() -> None:
    """A clip that is black but for two tokens of noise, and a network that predicts black."""
    plain = small_mae()
    plain.normalize_targets = False
    for parameter in plain.decoder.head.parameters():
        torch.nn.init.zeros_(parameter)
    clips = torch.zeros(64, 3, 4, 16, 16, dtype=torch.uint8)
    clips[:, :, :2, :4, :8] = 200  # one slot, one row of patches, two patches wide
    found = Evaluator(ValidationSet(clips, None), 8, batch_size=64).measure(plain, Stubborn())
    # Of the two, a random mask of 24 of 32 tokens hides both, one or none: 2, 1 or 0 carry error,
    # and a clip without any error counts as 1 (all of nothing lies in one place).
    both, one = 24 * 23 / (32 * 31), 2 * 24 * 8 / (32 * 31)
    expected = (2 * both + 1 * one + 1 * (1 - both - one)) * 32 / 24
    assert found["error_tokens"] == pytest.approx(expected, rel=0.1)


def test_measuring_leaves_networks_and_random_state_as_they_are(
    mae: MaskedAutoencoder, policy: SamplerPolicy
) -> None:
    before = {k: v.clone() for k, v in {**mae.state_dict(), **policy.state_dict()}.items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    Evaluator(validation(), 8, batch_size=5).measure(mae, policy)
    assert torch.equal(torch.get_rng_state(), state)
    after = {**mae.state_dict(), **policy.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in [*mae.parameters(), *policy.parameters()])


def test_measures_of_a_policy_that_never_varies_are_those_of_its_choice(
    mae: MaskedAutoencoder,
) -> None:
    moving = (torch.arange(32) < 4).expand(5, -1)  # half of what it shows
    found = Evaluator(validation(moving), 8, batch_size=2).measure(mae, Stubborn())
    assert found["clip_overlap"] == found["draw_overlap"] == 1.0
    sign, *_ = collapse_signs(found, num_visible=8, num_tokens=32)
    assert "the same places whatever the clip" in sign
    assert found["effective_tokens"] == pytest.approx(8.0, rel=1e-4)
    assert found["entropy"] == pytest.approx(math.log(8) / math.log(32), rel=1e-4)
    assert found["motion_ratio"] == pytest.approx((4 / 8) / (4 / 32))
    assert found["motion_auc"] == pytest.approx((24 + 4 / 2) / 28)  # ahead of 24, level with 4


def test_uniform_policy_has_full_entropy_and_overlaps_by_chance(
    mae: MaskedAutoencoder, grid: TokenGrid
) -> None:
    found = Evaluator(validation(), 8, batch_size=5).measure(mae, FixedPolicy(grid))
    assert found["entropy"] == pytest.approx(1.0)
    assert found["effective_tokens"] == pytest.approx(32.0, rel=1e-5)
    assert 0.0 < found["clip_overlap"] < 0.6
    assert 0.0 < found["draw_overlap"] < 0.6
    assert "motion_ratio" not in found  # nobody knows what moves
    assert collapse_signs(found, num_visible=8, num_tokens=32) == []
