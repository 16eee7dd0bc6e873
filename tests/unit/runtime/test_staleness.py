"""The buffer and the store between ranks and policy learner, in every order that can happen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tats_ray.config.load import parse_config
from tats_ray.core.errors import StaleError
from tats_ray.core.types import Rollout
from tats_ray.models.zoo import build_policy, token_grid
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.resources.rollout_bytes import buffer_bytes

CYCLES = 6


async def hand_over(
    num_ranks: int, staleness: int, pauses: Iterator[int], room: int
) -> tuple[list[int], list[list[int]]]:
    """Staleness of each update, and the versions each rank drew with."""
    buffer, store = RolloutBuffer(max_bytes=room), WeightStore(num_kept=staleness + 1)
    await buffer.reset("run")
    await store.reset("run")
    await store.publish("run", "policy", 0, [0])
    found: list[int] = []
    drawn: list[list[int]] = [[] for _ in range(num_ranks)]

    async def pause() -> None:
        for _ in range(next(pauses)):
            await asyncio.sleep(0)

    async def rank(index: int) -> None:
        version = 0
        for cycle in range(CYCLES):
            drawn[index].append(version)
            await pause()
            made = {"policy_version": version, "step": cycle, "rank": index}
            await buffer.push("run", cycle, made, 1, 60)
            await pause()
            wanted = max(version, cycle + 1 - staleness)
            version, _ = await store.fetch("run", "policy", wanted, 60)
            assert version == wanted  # never one that is newer by chance

    async def learner() -> None:
        for version in range(CYCLES):
            rollouts = await buffer.take("run", version, num_ranks, 60)
            found.append(version - min(r["policy_version"] for r in rollouts))
            await pause()
            await store.publish("run", "policy", version + 1, [version + 1])
            await pause()

    await asyncio.gather(learner(), *(rank(index) for index in range(num_ranks)))
    await buffer.read()  # begins a new reading, whose peak is what lies there now
    assert (await buffer.read())["buffer/bytes"] == 0
    return found, drawn


@settings(max_examples=60, deadline=None)
@given(
    num_ranks=st.integers(1, 3),
    staleness=st.integers(0, 3),
    pauses=st.lists(st.integers(0, 12), min_size=20, max_size=20),
)
def test_no_rollout_is_staler_than_the_bound_and_draws_do_not_depend_on_who_is_first(
    num_ranks: int, staleness: int, pauses: list[int]
) -> None:
    def again() -> Iterator[int]:
        while True:
            yield from pauses

    room = num_ranks * (staleness + 1)  # what the plan asks for
    found, drawn = asyncio.run(hand_over(num_ranks, staleness, again(), room=room))
    expected = [max(0, cycle - staleness) for cycle in range(CYCLES)]
    assert drawn == [expected] * num_ranks
    assert found == [cycle - version for cycle, version in enumerate(expected)]
    assert max(found) <= staleness


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plan_knows_to_the_byte_what_the_rollouts_of_a_cycle_hold(precision: str) -> None:
    config = parse_config(
        {
            "data": {"num_frames": 4, "image_size": 32},
            "model": {"size": "tiny", "patch": 8},
            "sampler": {"mask_ratio": 0.75},
            "optim": {"batch_size": 5},
            "loop": {
                "rollout_fraction": 0.5,
                "mae_steps_per_update": 3,
                "max_staleness": 1,
                "precision": precision,
            },
        }
    )
    grid = token_grid(config.data, config.model)
    policy = build_policy(config.sampler, config.model, grid, seed=0)
    tokens = torch.zeros(3, grid.num_tokens, 128, dtype=getattr(torch, precision))
    drawn = policy.act(tokens.float(), 8, generator=torch.Generator())
    rollout = Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=torch.zeros(3, grid.num_tokens),
        policy_version=0,
        step=0,
        rank=0,
    )
    updates, steps, ranks = 2, 3, 2
    assert buffer_bytes(config, grid, ranks) == rollout.num_bytes * ranks * steps * updates


def test_store_keeps_as_many_versions_as_asked_and_hands_out_the_oldest_that_will_do() -> None:
    async def story() -> list[int]:
        store = WeightStore(num_kept=2)
        await store.reset("run")
        for version in range(4):
            await store.publish("run", "policy", version, [version])
        return [(await store.fetch("run", "policy", wanted, 1))[0] for wanted in (0, 2, 3)]

    assert asyncio.run(story()) == [2, 2, 3]


def test_store_refuses_a_version_that_is_not_newer() -> None:
    async def story() -> None:
        store = WeightStore()
        await store.reset("run")
        await store.publish("run", "policy", 3, [3])
        await store.publish("run", "policy", 3, [3])

    with pytest.raises(StaleError, match="policy version 3 after 3"):
        asyncio.run(story())
