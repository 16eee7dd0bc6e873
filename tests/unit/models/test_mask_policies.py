"""What draws masks: learned samplers, tubes and uniform draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.core.errors import NonFiniteError, UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskRule
from tats_ray.core.types import Rollout
from tats_ray.models.policy import (
    FixedPolicy,
    SamplerPolicy,
    ValueHead,
)
from tats_ray.models.samplers.adamae import adamae_sampler
from tats_ray.models.samplers.fixed_masks import frame_mask, multi_block_mask, tube_mask
from tats_ray.models.samplers.oracle import MotionOracle, with_motion
from tats_ray.models.samplers.tats import tats_sampler

PAPER = TokenGrid()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


@pytest.fixture(scope="module")
def paper_policy() -> SamplerPolicy:
    """Zero-initialised, on the paper's grid but narrow."""
    return SamplerPolicy(tats_sampler(16, PAPER, num_heads=2), 16)


def test_zero_initialised_actor_is_exactly_uniform(paper_policy: SamplerPolicy) -> None:
    seen = paper_policy.evaluate(noise(1, 1568, 16))
    torch.testing.assert_close(seen.log_prob, torch.full((1, 1568), -7.35756), atol=5e-6, rtol=0)
    entropy = -(seen.log_prob.double().exp() * seen.log_prob).sum()
    assert entropy.item() == pytest.approx(7.35756, abs=5e-6)
    assert math.log(1568) == pytest.approx(7.35756, abs=5e-6)


def test_zero_initialised_actor_has_a_policy_gradient_all_the_same(
    paper_policy: SamplerPolicy,
) -> None:
    tokens = noise(1, 1568, 16)
    selection = paper_policy.act(tokens, 156, generator=generator())
    rollout = Rollout(
        tokens=tokens,
        visible_idx=selection.visible_idx,
        log_prob=selection.log_prob,
        value=selection.value,
        reward=torch.rand(1, 1568, generator=generator(1)),
        policy_version=0,
        step=0,
        rank=0,
    )
    algorithm = PPOConfig(value_coef=0.0).build(paper_policy)
    loss, _ = algorithm.loss(rollout, paper_policy.evaluate(tokens))
    paper_policy.zero_grad()
    loss.backward()
    gradient = paper_policy.sampler.actor.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 1e-8


def test_same_generator_state_gives_the_same_draw_and_another_state_another(
    policy: SamplerPolicy,
) -> None:
    tokens = noise(2, 32, 16)
    first, again, other = (
        policy.act(tokens, 8, generator=generator(seed)).visible_idx for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_acting_and_evaluating_agree_to_the_bit_and_acting_leaves_no_graph(
    policy: SamplerPolicy,
) -> None:
    tokens = noise(3, 32, 16)
    acted = policy.act(tokens, 8, generator=generator())
    evaluated = policy.evaluate(tokens)
    assert torch.equal(acted.log_prob, evaluated.log_prob)
    assert torch.equal(acted.value, evaluated.value)
    assert evaluated.log_prob.requires_grad
    assert not acted.log_prob.requires_grad
    assert not acted.value.requires_grad


def test_evaluating_again_is_the_same_in_training_mode(policy: SamplerPolicy) -> None:
    tokens = noise(2, 32, 16)  # dropout would make PPO's ratio differ from one by noise
    policy.train()
    assert torch.equal(policy.evaluate(tokens).log_prob, policy.evaluate(tokens).log_prob)


def test_probabilities_sum_to_one_and_sharpen_as_the_temperature_falls(
    grid: TokenGrid, policy: SamplerPolicy
) -> None:
    tokens = noise(2, 32, 16)
    tops = []
    for temperature in (4.0, 1.0, 0.25):
        policy.temperature = temperature
        log_prob = policy.evaluate(tokens).log_prob.detach()
        torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(2))
        tops.append(float(log_prob.max()))
    assert tops == sorted(tops)


def test_share_of_the_draws_is_uniform_and_scored_as_what_it_is(policy: SamplerPolicy) -> None:
    tokens = noise(1, 32, 16)
    policy.temperature = 0.02  # nearly all on one token
    alone = policy.evaluate(tokens).log_prob.detach().exp()
    assert float(alone.max()) > 0.9
    policy.uniform_share = 0.5
    log_prob = policy.evaluate(tokens).log_prob.detach()
    torch.testing.assert_close(log_prob.exp(), alone / 2 + 1 / 64)
    drawn = policy.act(tokens.expand(4000, -1, -1), 1, generator=generator())
    assert torch.equal(drawn.log_prob[0], log_prob[0])
    shares = torch.bincount(drawn.visible_idx.flatten(), minlength=32) / 4000
    assert float((shares - log_prob[0].exp()).abs().max()) < 0.025  # 3 sigma


def test_preferred_tokens_are_drawn_more_often(policy: SamplerPolicy) -> None:
    tokens = noise(1, 32, 16).expand(2000, -1, -1)
    drawn = policy.act(tokens, 4, generator=generator())
    counts = torch.bincount(drawn.visible_idx.flatten(), minlength=32).float()
    together = torch.stack([counts, drawn.log_prob[0].exp()])
    assert torch.corrcoef(together)[0, 1] > 0.95


def test_sampler_that_has_diverged_is_an_error(policy: SamplerPolicy) -> None:
    with torch.no_grad():
        policy.sampler.actor.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="non-finite logits"):
        policy.act(noise(2, 32, 16), 8, generator=generator())


def test_value_is_one_number_per_clip_whatever_the_order_of_its_tokens() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = ValueHead(16)
    tokens = noise(3, 32, 16)
    value = head(tokens)
    assert value.shape == (3,)
    torch.testing.assert_close(head(tokens.flip(1)), value)
    normed = torch.nn.functional.layer_norm(tokens[1], (16,), eps=1e-6)
    by_hand = head.fc2(torch.nn.functional.gelu(head.fc1(normed)).mean(0))
    torch.testing.assert_close(value[1:2], by_hand)


def test_value_trains_the_samplers_trunk_only_when_it_shares_it(grid: TokenGrid) -> None:
    for shares in (False, True):
        sampler = tats_sampler(16, grid, num_heads=2)
        policy = SamplerPolicy(sampler, 16, shares_trunk=shares)
        policy.evaluate(noise(2, 32, 16)).value.sum().backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in sampler.blocks.parameters()]
        assert any(reached) == shares


def test_policy_sends_no_gradient_to_the_tokens_that_it_observes(policy: SamplerPolicy) -> None:
    tokens = noise(2, 32, 16).requires_grad_()
    seen = policy.evaluate(tokens)
    (seen.log_prob.square().sum() + seen.value.sum()).backward()
    assert tokens.grad is None
    assert policy.sampler.actor.weight.grad is not None


def test_learned_positions_start_at_zero_and_fixed_ones_are_the_flat_sinusoid(
    grid: TokenGrid,
) -> None:
    learned = tats_sampler(16, grid, num_heads=2)
    assert isinstance(learned.pos_embed, torch.nn.Parameter)
    assert not learned.pos_embed.any()
    fixed = tats_sampler(16, grid, num_heads=2, pos_embed="sincos_1d")
    assert not isinstance(fixed.pos_embed, torch.nn.Parameter)
    assert fixed.pos_embed[0, 1, 0].item() == pytest.approx(math.sin(1))
    assert "pos_embed" not in fixed.state_dict()


def test_samplers_tell_positions_apart_only_through_their_position_code(grid: TokenGrid) -> None:
    same = noise(1, 1, 16).expand(1, 32, 16)
    for build in (tats_sampler, adamae_sampler):
        sampler = build(16, grid, num_heads=2, actor_init="xavier")
        blind = sampler(same)
        torch.testing.assert_close(blind, blind[:, :1].expand_as(blind))
        with torch.no_grad():
            sampler.pos_embed.copy_(noise(1, 32, 16, seed=5))
        assert float(sampler(same).detach().std()) > 0.01


def test_logits_stay_float32_in_bfloat16_arithmetic(policy: SamplerPolicy) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = policy.evaluate(noise(2, 32, 16))
    assert seen.log_prob.dtype == seen.value.dtype == torch.float32


def test_adamaes_block_has_its_epsilon_and_no_biases_on_query_key_and_value(
    grid: TokenGrid,
) -> None:
    block = adamae_sampler(16, grid, num_heads=2).blocks[0]
    names = dict(block.named_parameters())
    assert not {"attn.q_bias", "attn.v_bias", "attn.qkv.bias"} & names.keys()
    assert block.norm1.eps == block.norm2.eps == 1e-5  # type: ignore[union-attr]


def test_uniform_policy_draws_every_token_equally_often() -> None:
    policy = FixedPolicy(TokenGrid(num_frames=4, image_size=16, patch=4))
    drawn = policy.act(torch.zeros(4000, 32, 1), 8, generator=generator())
    counts = torch.bincount(drawn.visible_idx.flatten(), minlength=32) / 4000
    sigma = math.sqrt(0.25 * 0.75 / 4000)
    assert float((counts - 0.25).abs().max()) < 4 * sigma  # 32 tokens: 4, not 3
    torch.testing.assert_close(drawn.log_prob, torch.full((4000, 32), -math.log(32)))
    assert not drawn.value.any()


def test_tube_shows_the_same_columns_in_every_slot_and_different_ones_in_each_clip() -> None:
    policy = FixedPolicy(PAPER, tube_mask)
    count = PAPER.num_visible_tube(0.9)
    drawn = policy.act(torch.zeros(4, 1568, 1), count, generator=generator()).visible_idx
    assert drawn.shape == (4, 160)
    columns = []
    for row in drawn.tolist():
        per_slot = [sorted(n % 196 for n in row if n // 196 == slot) for slot in range(8)]
        assert all(len(set(slot)) == 20 and slot == per_slot[0] for slot in per_slot)
        columns.append(tuple(per_slot[0]))
    assert len(set(columns)) == 4


def test_tube_refuses_a_count_that_is_not_whole_columns() -> None:
    with pytest.raises(ValueError, match="over 8 time slots cannot show 157"):
        FixedPolicy(PAPER, tube_mask).act(torch.zeros(1, 1568, 1), 157, generator=generator())


def test_frames_are_shown_whole_and_the_rounding_is_the_methods() -> None:
    shown = [PAPER.num_visible_frame(ratio) for ratio in (0.75, 0.8, 0.85, 0.9, 0.95)]
    assert shown == [392, 392, 392, 196, 196]  # method section 5
    drawn = FixedPolicy(PAPER, frame_mask).act(torch.zeros(40, 1568, 1), 392, generator=generator())
    slots = []
    for row in drawn.visible_idx.tolist():
        per_slot = [len({n for n in row if n // 196 == slot}) for slot in range(8)]
        assert sorted(per_slot) == [0] * 6 + [196] * 2
        slots.append(tuple(per_slot))
    assert len(set(slots)) > 15  # of 28 pairs
    with pytest.raises(ValueError, match="196 tokens a slot cannot show 157"):
        FixedPolicy(PAPER, frame_mask).act(torch.zeros(1, 1568, 1), 157, generator=generator())
    with pytest.raises(
        UsageError, match=r"0\.1 hides none of the 8 time slots; use at least 0\.125"
    ):
        PAPER.num_visible_frame(0.1)


@pytest.mark.parametrize("count", [1, 78, 157, 1000, 1567])
def test_blocks_hide_columns_through_all_time_and_leave_exactly_the_asked_count(
    count: int,
) -> None:
    policy = FixedPolicy(PAPER, multi_block_mask)
    drawn = policy.act(torch.zeros(4, 1568, 1), count, generator=generator()).visible_idx
    assert drawn.shape == (4, count)
    visible = torch.zeros(4, 1568, dtype=torch.bool).scatter(1, drawn, True)
    assert visible.sum(1).tolist() == [count] * 4  # distinct
    slots_shown = visible.view(4, 8, 196).sum(1)
    # A column is shown at all times or at none, but for the one that is trimmed to the count.
    assert (((slots_shown > 0) & (slots_shown < 8)).sum(1) == int(count % 8 > 0)).all()
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) == 4


def test_blocks_hide_neighbours_together_where_a_random_tube_does_not() -> None:
    def alike(rule: MaskRule) -> float:
        """Share of neighbouring columns that are both shown or both hidden."""
        drawn = FixedPolicy(PAPER, rule).act(torch.zeros(64, 1568, 1), 784, generator=generator())
        visible = torch.zeros(64, 1568, dtype=torch.bool).scatter(1, drawn.visible_idx, True)
        first_slot = visible[:, :196].view(64, 14, 14)
        return float((first_slot[:, :, 1:] == first_slot[:, :, :-1]).float().mean())

    assert alike(tube_mask) == pytest.approx(0.5, abs=0.02)
    assert alike(multi_block_mask) > 0.8


def test_oracle_draws_in_proportion_to_true_motion_plus_a_floor() -> None:
    grid = TokenGrid(num_frames=4, image_size=16, patch=4)
    motion = torch.zeros(6000, 32)
    motion[:, :4] = torch.tensor([1.0, 0.5, 0.25, 0.0])
    oracle = with_motion(MotionOracle(grid), motion)
    drawn = oracle.act(torch.zeros(6000, 32, 1), 1, generator=generator())
    found = torch.bincount(drawn.visible_idx[:, 0], minlength=32) / 6000
    weight = motion[0] + 0.05
    expected = weight / weight.sum()
    sigma = (expected * (1 - expected) / 6000).sqrt()
    assert ((found - expected).abs() < 4 * sigma).all()
    torch.testing.assert_close(drawn.log_prob[0].exp(), expected)


def test_oracle_that_was_told_no_motion_says_what_it_needs(policy: SamplerPolicy) -> None:
    grid = TokenGrid(num_frames=4, image_size=16, patch=4)
    with pytest.raises(UsageError, match=r"oracle needs the true motion .* choose another sampler"):
        MotionOracle(grid).act(torch.zeros(1, 32, 1), 4, generator=generator())
    assert with_motion(policy, torch.zeros(1, 32)) is policy
