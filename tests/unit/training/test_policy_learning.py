"""The policy learner: an update is a function of its rollouts, not of how they arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tats_ray.benchmarks.operations import Operations
from torch import Tensor

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.core.types import Metrics, Rollout
from tats_ray.models import trajectory
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.tats import tats_sampler
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyLearner


def play(policy: SamplerPolicy, step: int, rank: int = 0) -> Rollout:
    generator = torch.Generator().manual_seed(10 * step + rank)
    tokens = torch.randn(2, 32, 16, generator=generator)
    drawn = policy.act(tokens, 8, generator=generator)
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=torch.rand(2, 32, generator=generator),
        policy_version=0,
        step=step,
        rank=rank,
    )


class Recorder:
    """An algorithm that only notes what it is given."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[tuple[int, int, int]], Tensor]] = []

    def update(self, rollouts: Sequence[Rollout], *, generator: torch.Generator) -> Metrics:
        entries = [(r.step, r.rank, len(r.value)) for r in rollouts]
        self.calls.append((entries, torch.rand(3, generator=generator)))
        return {"loss": 1.5}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": {}, "numbers": {}}

    def load_state_dict(self, state: Any) -> None:
        pass


def test_rollouts_are_put_in_order_and_ranks_of_one_step_form_one_entry(
    policy: SamplerPolicy,
) -> None:
    recorder = Recorder()
    learner = PolicyLearner(policy, recorder, seed=7)
    shuffled = [play(policy, s, r) for s, r in ((4, 1), (3, 0), (5, 0), (4, 0), (3, 1), (5, 1))]
    assert learner.update(shuffled) == {"loss": 1.5, "staleness": 0, "mae_lag": 0}
    assert recorder.calls[0][0] == [(3, 0, 4), (4, 0, 4), (5, 0, 4)]


def test_versions_count_up_and_name_the_random_stream_of_each_update(
    policy: SamplerPolicy,
) -> None:
    recorder = Recorder()
    learner = PolicyLearner(policy, recorder, seed=7)
    for version in range(3):
        assert learner.version == version
        learner.update([play(policy, version)])
    for version, (_, drawn) in enumerate(recorder.calls):
        expected = torch.rand(3, generator=stream(7, "update", version))
        assert torch.equal(drawn, expected)


def test_order_of_arrival_changes_no_bit_of_the_new_weights(policy: SamplerPolicy) -> None:
    rollouts = [play(policy, step, rank) for step in range(3) for rank in range(2)]
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    results = []
    for arrived in (rollouts, rollouts[::-1], rollouts[3:] + rollouts[:3]):
        policy.load_state_dict(start)
        algorithm = PPOConfig(lr=1e-2, update_steps=2).build(policy)
        learner = PolicyLearner(policy, algorithm, seed=0)
        learner.update(arrived)
        results.append({name: value.clone() for name, value in learner.weights().items()})
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)
    assert not torch.equal(results[0]["sampler.actor.weight"], start["sampler.actor.weight"])


def test_local_client_hands_over_its_memory_once_and_returns_the_new_version(
    policy: SamplerPolicy,
) -> None:
    recorder = Recorder()
    client = LocalPolicyClient(PolicyLearner(policy, recorder, seed=0))
    client.push(play(policy, 0))
    client.push(play(policy, 1))
    update = client.update(2)
    assert update is not None
    assert (update.version, dict(update.metrics)) == (
        1,
        {"loss": 1.5, "staleness": 0, "mae_lag": 0},
    )
    assert update.weights.keys() == policy.state_dict().keys()
    client.push(play(policy, 2))
    client.update(1)
    assert [entries for entries, _ in recorder.calls] == [[(0, 0, 2), (1, 0, 2)], [(2, 0, 2)]]


def test_state_of_a_learner_continues_in_another(policy: SamplerPolicy) -> None:
    algorithm = PPOConfig(lr=1e-2).build(policy)
    learner = PolicyLearner(policy, algorithm, seed=0)
    learner.update([play(policy, 0)])
    state = learner.state_dict()
    assert state["numbers"] == {"version": 1}
    assert set(state) == {"network", "optimizer", "numbers"}
    other = PolicyLearner(policy, PPOConfig(lr=1e-2).build(policy), seed=0)
    other.load_state_dict(state)
    assert other.version == 1


def test_local_client_holds_weights_back_as_long_as_the_staleness_says(
    policy: SamplerPolicy,
) -> None:
    client = LocalPolicyClient(
        PolicyLearner(policy, PPOConfig(lr=1e-2).build(policy), seed=0), max_staleness=2
    )
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    handed = []
    for step in range(4):
        client.push(play(policy, step))
        handed.append(client.update(1))
    assert [update and update.version for update in handed] == [None, None, 1, 2]
    assert handed[3] is not None
    assert not torch.equal(
        handed[3].weights["value_head.fc1.weight"], start["value_head.fc1.weight"]
    )
    last = client.drain()
    assert last is not None
    assert last.version == 4
    for name, value in client.learner.weights().items():
        assert torch.equal(last.weights[name], value)
    assert client.drain() is None


PAPER = TokenGrid(num_frames=16, image_size=224, tubelet=2, patch=16)


@pytest.mark.parametrize(("recompute", "is_reused", "bound"), [
    (False, True, 720), (False, False, 880), (True, True, 1700),
])  # fmt: skip
def test_an_update_of_the_papers_block_dispatches_few_operations(
    recompute: bool, is_reused: bool, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clip. Narrow, with a cache so much smaller that it is cut into as many parts."""
    width, heads = 24, 12
    monkeypatch.setitem(trajectory._VALUES_AT_ONCE, "cpu", 1_850_000 * width // 768)
    policy = SamplerPolicy(tats_sampler(width, PAPER, num_heads=heads, recompute=recompute), width)
    algorithm = PPOConfig().build(policy)
    counts = []
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randn(1, PAPER.num_tokens, width, generator=generator)
        seen = policy.evaluate(tokens)
        drawn = policy.draw(seen, 78, generator=generator)
        rollout = Rollout(
            tokens=tokens,
            visible_idx=drawn.visible_idx,
            log_prob=drawn.log_prob,
            value=drawn.value,
            reward=torch.rand(1, PAPER.num_tokens, generator=generator),
            policy_version=0,
            step=step,
            rank=0,
            drawn=seen if is_reused else None,
        )
        with Operations() as operations:
            algorithm.update([rollout], generator=generator)
        counts.append(operations.count)
    assert bound * 0.9 < counts[1] <= bound  # the optimiser makes its state in the first
