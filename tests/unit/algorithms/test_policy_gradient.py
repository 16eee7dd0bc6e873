"""What algorithms share: the walk over the memory, diagnostics, refusal of non-finite losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.types import Evaluation, Metrics, Rollout
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import SamplerPolicy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def play(policy: SamplerPolicy, step: int = 0) -> Rollout:
    tokens = torch.randn(2, 32, 16, generator=generator(step))
    drawn = policy.act(tokens, 8, generator=generator(100 + step))
    reward = torch.rand(2, 32, generator=generator(200 + step))
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=reward.scatter(1, drawn.visible_idx, 0.0),
        policy_version=0,
        step=step,
        rank=0,
    )


class Recorder(PolicyGradient):
    """Notes which entry each optimiser step takes."""

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Tensor, Metrics]:
        self.seen = [*getattr(self, "seen", []), rollout]
        return now.log_prob[:, 0].mean(), {"size": float(len(rollout.value))}


def walk(policy: SamplerPolicy, memory: Sequence[Rollout], num_steps: int) -> list[int]:
    """MAE step of the entry that each optimiser step took."""
    algorithm = Recorder(PPOConfig(), policy, num_steps=num_steps)
    algorithm.update(memory, generator=generator(3))
    return [rollout.step for rollout in algorithm.seen]


def test_steps_walk_over_a_permutation_of_the_entries_round_and_round(
    policy: SamplerPolicy,
) -> None:
    memory = [play(policy, step) for step in range(5)]
    steps = walk(policy, memory, 12)
    order = torch.randperm(5, generator=generator(3)).tolist()
    assert sorted(order) == list(range(5))
    assert steps == (order * 3)[:12]
    assert walk(policy, memory, 2) == order[:2]
    assert walk(policy, memory[:1], 3) == [0, 0, 0]


def test_taking_all_entries_gives_every_step_all_clips(policy: SamplerPolicy) -> None:
    algorithm = Recorder(PPOConfig(), policy, num_steps=2, takes_all_entries=True)
    metrics = algorithm.update([play(policy, step) for step in range(3)], generator=generator())
    assert [len(rollout.value) for rollout in algorithm.seen] == [6, 6]
    assert metrics["size"] == 6.0


def test_minibatch_setting_chooses_between_one_entry_and_all(policy: SamplerPolicy) -> None:
    assert PPOConfig(minibatch="all").build(policy).takes_all_entries
    assert not PPOConfig(minibatch="entry").build(policy).takes_all_entries
    assert PPOConfig(update_steps=7).build(policy).num_steps == 7


def test_metrics_are_means_over_the_optimiser_steps(policy: SamplerPolicy) -> None:
    memory = [play(policy, step) for step in range(2)]
    returns = [float(r.reward.sum(1).mean()) / 24 for r in memory]  # 24 hidden tokens, 0 elsewhere
    metrics = PPOConfig(update_steps=2).build(policy).update(memory, generator=generator())
    assert metrics["reward"] == pytest.approx(sum(returns) / 2)


def test_divergence_and_clip_fraction_compare_the_policy_that_drew_with_the_one_after_the_update(
    policy: SamplerPolicy,
) -> None:
    parts = [play(policy, step) for step in range(5)]
    # A batch of ten clips, not five of two: two of its clips are looked at again.
    memory = replace(Rollout.concatenate(parts), num_parts=1)
    acting = memory.log_prob[:2].double()
    metrics = (
        PPOConfig(lr=3e-2, clip_eps=0.05).build(policy).update([memory], generator=generator())
    )
    after = policy.evaluate(memory.tokens[:2]).log_prob.detach().double()
    divergence = kl_divergence(Categorical(logits=acting), Categorical(logits=after)).mean()
    assert metrics["approx_kl"] == pytest.approx(float(divergence), rel=1e-3)
    assert metrics["approx_kl"] > 1e-4
    ratio = (after - acting).exp()
    far = [
        abs(float(ratio[clip, token]) - 1) > 0.05
        for clip in range(2)
        for token in set(range(32)) - set(memory.visible_idx[clip].tolist())
    ]
    assert metrics["clip_fraction"] == pytest.approx(sum(far) / len(far))
    assert 0 < metrics["clip_fraction"] < 1


def test_update_that_moves_nothing_diverges_by_nothing(policy: SamplerPolicy) -> None:
    config = PPOConfig(lr=1e-30, weight_decay=0.0)
    metrics = config.build(policy).update([play(policy)], generator=generator())
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-7)
    assert metrics["clip_fraction"] == 0.0


def test_masks_of_one_clip_share_one_evaluation_of_the_policy(policy: SamplerPolicy) -> None:
    one = play(policy)
    both = replace(
        Rollout.concatenate([one, one]),
        **{name: getattr(one, name).repeat_interleave(2, 0) for name in ("tokens", "visible_idx")},
        masks_per_clip=2,
    )
    seen: list[int] = []
    evaluate = policy.evaluate

    def spy(tokens: Tensor) -> Evaluation:
        seen.append(len(tokens))
        return evaluate(tokens)

    policy.evaluate = spy  # type: ignore[method-assign]
    shared = Recorder(PPOConfig(), policy).evaluate(both)
    assert seen == [2]
    torch.testing.assert_close(shared.log_prob, evaluate(both.tokens).log_prob)
    torch.testing.assert_close(shared.value, evaluate(both.tokens).value)


def test_diagnostics_of_a_uniform_policy_are_those_of_the_uniform_distribution(
    flat_policy: SamplerPolicy,
) -> None:
    memory = play(flat_policy)
    metrics = PPOConfig(lr=1e-12).build(flat_policy).update([memory], generator=generator())
    assert metrics["entropy"] == pytest.approx(1.0)
    assert metrics["effective_tokens"] == pytest.approx(32.0, rel=1e-5)
    assert metrics["max_prob_x_n"] == pytest.approx(1.0, rel=1e-5)
    assert metrics["value"] == pytest.approx(float(memory.value.mean()))


def test_diagnostics_of_a_policy_that_is_sure_of_one_token_show_the_collapse(
    policy: SamplerPolicy,
) -> None:
    log_prob = torch.full((2, 32), -60.0)
    log_prob[:, 3] = 0.0
    memory = replace(play(policy), log_prob=log_prob)
    found = PolicyGradient.diagnostics(memory, Evaluation(log_prob, memory.value))
    assert found["entropy"] == pytest.approx(0.0, abs=1e-6)
    assert found["effective_tokens"] == pytest.approx(1.0)
    assert found["max_prob_x_n"] == pytest.approx(32.0)


def test_loss_that_is_not_finite_leaves_the_policy_as_it_was(policy: SamplerPolicy) -> None:
    memory = play(policy)
    memory.reward[0] = math.inf
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with pytest.raises(NonFiniteError, match="at MAE step 0"):
        PPOConfig(lr=1.0).build(policy).update([memory], generator=generator())
    assert all(torch.equal(before[k], v) for k, v in policy.state_dict().items())


def test_update_is_a_function_of_weights_memory_and_generator(policy: SamplerPolicy) -> None:
    memory = [play(policy, step) for step in range(3)]
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    results = []
    for seed in (0, 0, 1):
        policy.load_state_dict(start)
        algorithm = PPOConfig(lr=1e-2, update_steps=2).build(policy)
        algorithm.update(memory, generator=generator(seed))
        results.append(policy.sampler.actor.weight.clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_autoencoder_and_policy_send_each_other_no_gradient(
    mae: MaskedAutoencoder, policy: SamplerPolicy, clips: Tensor
) -> None:
    tokens = mae.embed(clips)
    drawn = policy.act(tokens, 8, generator=generator())
    reconstruction = mae(clips, drawn.visible_idx)
    reconstruction.loss.backward()
    assert all(p.grad is None for p in policy.parameters())
    assert all(p.grad is not None for p in mae.parameters())

    mae.zero_grad(set_to_none=True)
    # Tokens and error that still hang on the autoencoder, as a careless caller could pass them.
    tokens = mae.encoder.patch_embed(mae.pixels(clips))
    assert tokens.requires_grad
    memory = Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=reconstruction.error.detach(),
        policy_version=0,
        step=0,
        rank=0,
    )
    loss, _ = PPOConfig(policy_coef=1.0).build(policy).loss(memory, policy.evaluate(tokens))
    loss.backward()
    assert all(p.grad is None for p in mae.parameters())
    assert all(p.grad is not None for p in policy.parameters())
