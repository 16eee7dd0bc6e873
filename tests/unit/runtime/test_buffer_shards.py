"""Which shard of the buffer takes what, and where shards are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.config.load import parse_config
from tats_ray.runtime.resources.buffer_shards import (
    nodes_of_shards,
    places_of_update,
    shard_beside,
    shards_of_slots,
)

NODES = st.sampled_from("abc")


@given(st.lists(NODES, min_size=1, max_size=4), st.lists(NODES, min_size=4, max_size=9))
def test_shares_are_equal_or_differ_by_one_wherever_the_slots_are(
    shards_at: list[str], slots_at: list[str]
) -> None:
    found = shards_of_slots(slots_at, shards_at)
    counts = Counter(found)
    assert set(counts) == set(range(len(shards_at)))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert found == shards_of_slots(slots_at, shards_at)


@given(st.permutations("aabbcc"), st.permutations("abc"))
def test_no_rollout_leaves_its_node_where_every_node_has_a_shard_and_as_many_slots(
    slots_at: list[str], shards_at: list[str]
) -> None:
    found = shards_of_slots(slots_at, shards_at)
    assert [shards_at[shard] for shard in found] == slots_at


@pytest.mark.parametrize(
    ("slots_at", "shards_at", "expected"),
    [
        ("aaaa", "a", [0, 0, 0, 0]),
        ("aaaa", "aa", [0, 1, 0, 1]),
        ("aaab", "ab", [0, 0, 1, 1]),  # as many for each, so one has to go
        ("aaa", "ab", [0, 0, 1]),
        ("abab", "xy", [0, 1, 0, 1]),
    ],
)
def test_slots_go_to_their_own_node_as_far_as_shares_stay_equal(
    slots_at: str, shards_at: str, expected: list[int]
) -> None:
    assert shards_of_slots([*slots_at], [*shards_at]) == expected


def test_whoever_has_no_shard_on_its_node_takes_one_in_turn() -> None:
    assert [shard_beside("b", index, ["a", "b", "b"]) for index in range(3)] == [1, 2, 1]
    assert [shard_beside("x", index, ["a", "b", "b"]) for index in range(4)] == [0, 1, 2, 0]


def test_every_entry_of_an_update_is_divided_alike() -> None:
    """Policy learners go through the entries together, so each has a part of every one."""
    raw = {"cluster": {"num_workers": 3, "policy_learners": 2}, "loop": {"mae_steps_per_update": 2}}
    assert places_of_update(parse_config(raw)) == [0, 1, 0, 0, 1, 0]


def test_shards_are_one_on_each_node_the_largest_first() -> None:
    nodes = {"head": {"CPU": 0.0}, "a": {"CPU": 4.0}, "b": {"CPU": 8.0}}
    assert nodes_of_shards(2, 0.0, nodes) == ["b", "a"]
    assert nodes_of_shards(4, 0.0, nodes) == ["b", "a", "head", "b"]
    gpus = {"c": {"CPU": 2.0, "GPU": 1.0}, **nodes}
    assert nodes_of_shards(2, 1.0, gpus) == ["c", "c"]
    assert nodes_of_shards(2, 0.0, gpus) == ["c", "b"]
