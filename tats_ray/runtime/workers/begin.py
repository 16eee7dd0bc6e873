"""How rank 0 has the actors beside the learners begin an incarnation of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from tats_ray.runtime.actors.calls import GRACE_S, call_restarting, gather
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import Membership
from tats_ray.runtime.resources.buffer_shards import shards_of_slots


def begin_with(
    peers: Peers,
    incarnation: str,
    state: Mapping[str, Any] | None,
    *,
    slots_at: Sequence[str],
    timeout_s: float,
) -> tuple[list[int], list[str]]:
    """Empty all of them, and give the policy learners what a checkpoint holds.

    Args:
        state: of the policy; None begins from the seed.
        slots_at: node of each slot's producer.

    Returns:
        Of each slot, the shard of the buffer that takes its rollouts; and where the shards are.
    """
    fenced = [*peers.shards, peers.store, *([peers.desk] if peers.desk is not None else [])]
    for actor in fenced:  # the buffer first, so that nobody waits for its rollouts any more
        call_restarting(actor.reset, incarnation, timeout_s=timeout_s)
    first, *others = peers.policy_learners
    if not others:
        call_restarting(
            first.reset,
            incarnation,
            state,
            buffer=peers.shards[0],
            store=peers.store,
            timeout_s=timeout_s,
        )
        return [0] * len(slots_at), [""]
    nodes = ray.get([shard.node.remote() for shard in peers.shards], timeout=timeout_s)
    places = shards_of_slots(slots_at, nodes)
    for learner in others:  # all of them, or those that are there would wait for the rest
        call_restarting(learner.is_up, timeout_s=timeout_s)
    meeting = call_restarting(first.open_meeting, timeout_s=timeout_s)
    kept = ray.put(state)
    replies = [
        learner.reset.remote(
            incarnation,
            kept,
            buffer=shard,
            store=peers.store,
            member=Membership(rank, len(peers.shards), places.count(rank) / len(places), meeting),
        )
        for rank, (learner, shard) in enumerate(
            zip(peers.policy_learners, peers.shards, strict=True)
        )
    ]
    gather(replies, timeout_s + GRACE_S)
    return places, nodes
