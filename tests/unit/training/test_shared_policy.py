"""Several policy learners that average are one that has all rollouts."""

from __future__ import annotations

import datetime
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tats_ray.algorithms.a2c import A2CConfig
from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.algorithms.rloo import RLOOConfig
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.errors import NonFiniteError, PeerLostError
from tats_ray.core.group import ALONE, Group
from tats_ray.core.types import Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.tats import tats_sampler
from tats_ray.training.policy_learner import PolicyLearner
from tats_ray.training.rank_group import RankGroup
from tests.conftest import GRID, WIDTH, join_pair

NUM_SLOTS, CLIPS = 4, 6
COEFS = {"policy_coef": 1.0, "entropy_coef": 1e-2}
ALGORITHMS: list[AlgorithmConfig] = [
    PPOConfig(value_coef=0.5, update_steps=3, **COEFS),
    PPOConfig(advantage="standardized", minibatch="all", update_steps=2, **COEFS),
    PPOConfig(scored="joint", advantage="standardized", **COEFS),
    A2CConfig(value_coef=0.5, advantage="standardized", target_entropy=0.97, **COEFS),
    ReinforceConfig(baseline="clip_mean", **COEFS),
    GRPOConfig(group_size=2, update_steps=2, **COEFS),
    RLOOConfig(group_size=3, **COEFS),
]


class Threads:
    """Members of a group that are threads of this process: an independent `Group`."""

    def __init__(self, shares: Sequence[float]) -> None:
        self._parts: list[Tensor] = [torch.empty(0)] * len(shares)
        self._barrier = threading.Barrier(len(shares), timeout=60)
        self.members = [_Member(self, rank, share) for rank, share in enumerate(shares)]

    def sum(self, rank: int, values: Tensor) -> Tensor:
        self._parts[rank] = values.detach()
        self._barrier.wait()
        total = torch.stack(self._parts).sum(0).to(values.dtype)
        self._barrier.wait()
        return total


class _Member:
    def __init__(self, group: Threads, rank: int, share: float) -> None:
        self.size, self.share = len(group._parts), share
        self._group, self._rank = group, rank

    def sum(self, values: Tensor) -> Tensor:
        return self._group.sum(self._rank, values)


@cache
def first_policy() -> SamplerPolicy:
    """To be copied: threads share one global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        sampler = tats_sampler(WIDTH, GRID, num_heads=2, actor_init="xavier", whiten_tokens=True)
        return SamplerPolicy(sampler, WIDTH)


def rollout(owner: SamplerPolicy, step: int, slot: int, masks: int, version: int) -> Rollout:
    """Of a slot: the same, whichever learner has it."""
    generator = torch.Generator().manual_seed(100 * step + slot)
    tokens = torch.randn(CLIPS // masks, GRID.num_tokens, WIDTH, generator=generator)
    tokens = (tokens * (1 + slot)).repeat_interleave(masks, 0)
    drawn = owner.act(tokens, 8, generator=generator)
    reward = torch.rand(CLIPS, GRID.num_tokens, generator=generator) * (1 + slot)
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=reward,
        policy_version=version,
        step=step,
        rank=slot,
        masks_per_clip=masks,
    )


def seen_by_a_softmax(name: str, value: Tensor) -> Tensor:
    """Some biases shift all logits of a softmax alike: the actor's, the one before it, and those of
    keys. Their gradients are rounding alone, of which Adam makes whole steps.
    """
    if name in ("sampler.actor.bias", "sampler.blocks.0.mlp.fc2.bias"):
        return value * 0
    if name.endswith("qkv.bias"):
        return torch.cat([value[:WIDTH], value[2 * WIDTH :]])
    return value


def learn(
    config: AlgorithmConfig,
    group: Group,
    slots: Sequence[int],
    *,
    updates: int,
    spoil: Callable[[Rollout], Rollout] = lambda rollout: rollout,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    owner = deepcopy(first_policy())
    learner = PolicyLearner(owner, config.build(owner), seed=0, group=group)
    told = []
    for version in range(updates):
        entries = [
            spoil(rollout(owner, 2 * version + part, slot, config.masks_per_clip, version))
            for part in range(2)
            for slot in slots
        ]
        told.append(dict(learner.update(entries)))
    return {name: value.clone() for name, value in owner.state_dict().items()}, told


def together(
    config: AlgorithmConfig, parts: Sequence[Sequence[int]], **how: Any
) -> list[tuple[dict[str, Tensor], list[dict[str, float]]]]:
    """Each part of the slots in a learner of its own."""
    first_policy()
    group = Threads([len(part) / NUM_SLOTS for part in parts])
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = zip(group.members, parts, strict=True)
        runs = [pool.submit(learn, config, member, part, **how) for member, part in jobs]
        return [run.result(timeout=120) for run in runs]


@pytest.mark.parametrize(
    ("parts", "updates"),
    [
        ([(0, 1, 2), (3,)], 3),
        pytest.param([(0, 1), (2, 3)], 20, marks=pytest.mark.long),
        pytest.param([(0,), (1,), (2,), (3,)], 20, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("config", ALGORITHMS, ids=lambda config: type(config).__name__)
def test_any_number_of_learners_equals_one_with_all_rollouts(
    config: AlgorithmConfig, parts: list[tuple[int, ...]], updates: int
) -> None:
    """Adam divides by the gradient, so rounding grows with the rate."""
    config = replace(config, lr=1e-4)
    weights, metrics = learn(config, ALONE, range(NUM_SLOTS), updates=updates)
    results = together(config, parts, updates=updates)
    for found, told in results:
        for name, expected in weights.items():
            size = expected.abs().max().clamp_min(1)
            far = (seen_by_a_softmax(name, found[name] - expected) / size).abs().max()
            assert far < 1e-6, name
        for record, expected_record in zip(told, metrics, strict=True):
            assert record == pytest.approx(expected_record, abs=1e-6, rel=1e-6)
        assert all(torch.equal(found[name], value) for name, value in results[0][0].items())


def test_learners_that_do_not_average_differ() -> None:
    """What the tests above would see."""
    first, _ = learn(ALGORITHMS[0], ALONE, (0, 1), updates=2)
    second, _ = learn(ALGORITHMS[0], ALONE, (2, 3), updates=2)
    assert not torch.allclose(first["sampler.actor.weight"], second["sampler.actor.weight"])


def of_two(rank: int, folder: str) -> None:
    join_pair(rank, folder)
    group = RankGroup(share=0.5, timeout_s=60)
    for name, config in (("standardized", ALGORITHMS[1]), ("plain", ReinforceConfig())):
        group.num_bytes = 0
        weights, told = learn(config, group, (2 * rank, 2 * rank + 1), updates=3)
        torch.save((weights, told, group.num_bytes), f"{folder}/{name}{rank}.pt")

    def spoil(rollout: Rollout) -> Rollout:
        is_bad = (rollout.rank, rollout.step) == (
            3,
            2,
        )  # the second learner's, in its second update
        return replace(rollout, reward=rollout.reward * math.nan) if is_bad else rollout

    try:
        learn(ReinforceConfig(), group, (2 * rank, 2 * rank + 1), spoil=spoil, updates=3)
    except NonFiniteError as error:
        torch.save((str(error), error.is_own, error.rollouts), f"{folder}/error{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(120)
def test_two_processes_learn_the_same_exchange_gradients_alone_and_stop_together(
    tmp_path: Path,
) -> None:
    spawn(of_two, args=(str(tmp_path),), nprocs=2)

    def load(name: str) -> list[Any]:
        return [torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in range(2)]

    (weights, told, _), (other, also_told, _) = load("standardized")
    assert all(torch.equal(other[name], value) for name, value in weights.items())
    assert told == also_told
    expected, _ = learn(ALGORITHMS[1], ALONE, range(NUM_SLOTS), updates=3)
    for name, value in weights.items():
        assert seen_by_a_softmax(name, value - expected[name]).abs().max() < 1e-4, name

    # Whitening has its covariance summed, too; everything else is a few numbers.
    (_, _, num_bytes), _ = load("plain")
    sizes = [p.numel() * 4 for n, p in first_policy().named_parameters() if "value" not in n]
    whitening = 2 * (WIDTH * WIDTH + WIDTH) * 8
    assert sum(sizes) <= num_bytes / 3 - whitening <= 1.05 * sum(sizes)

    (first, is_firsts, _), (second, is_seconds, spoilt) = load("error")
    assert (is_firsts, is_seconds) == (False, True)
    assert spoilt == ((0, 2, 3),)  # the first of the update's two steps, step 2, slot 3
    assert "the policy loss is nan at MAE step 2" in second
    assert "at MAE step 2" in first


def of_four(rank: int, folder: str) -> None:
    """The last one is killed, and a neighbour of its neighbours has to learn of it, too."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=4,
        timeout=datetime.timedelta(seconds=60),
    )
    group = RankGroup(share=0.25, timeout_s=60)
    group.sum(torch.ones(10**6))
    if rank == 3:
        time.sleep(1)
        os._exit(0)
    began = time.monotonic()
    try:
        group.sum(torch.ones(10**6))
    except PeerLostError as error:
        found = (time.monotonic() - began, str(error))
        dist.destroy_process_group()
        torch.save(found, f"{folder}/lost{rank}.pt")
    deadline = time.monotonic() + 60
    while len(list(Path(folder).glob("lost*.pt"))) < 3:  # alive, as an actor would be
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_members_learn_at_once_that_one_has_gone_wherever_they_stand(tmp_path: Path) -> None:
    spawn(of_four, args=(str(tmp_path),), nprocs=4)
    for rank in range(3):
        seconds, said = torch.load(tmp_path / f"lost{rank}.pt", weights_only=True)
        assert seconds < 20
        assert said.startswith("lost its connection to another learner: ")
