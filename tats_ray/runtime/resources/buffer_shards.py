"""Which shard of the rollout buffer takes what: near to where it was made, in equal shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tats_ray.config.schema import RunConfig


def shards_of_slots(slots_at: Sequence[str], shards_at: Sequence[str]) -> list[int]:
    """The shard of each slot, the same for all steps of a run.

    Every shard gets as many as the others, or one more. Within that, slots go to a shard on their
    own node.

    Args:
        slots_at: node of each slot's producer.
        shards_at: node of each shard; there are no more of them than slots.
    """
    least, spare = divmod(len(slots_at), len(shards_at))
    counts, found = [0] * len(shards_at), [-1] * len(slots_at)
    for only_own in (True, False):
        for slot, node in enumerate(slots_at):
            if found[slot] >= 0:
                continue
            fitting = [
                shard
                for shard, at in enumerate(shards_at)
                if (at == node or not only_own) and counts[shard] < least + (spare > 0)
            ]
            if fitting:
                shard = min(fitting, key=lambda shard: counts[shard])
                spare -= counts[shard] == least
                counts[shard] += 1
                found[slot] = shard
    return found


def places_of_update(config: RunConfig) -> list[int]:
    """The shard of each rollout of an update, where rollout workers make them anywhere."""
    cluster = config.cluster
    places = shards_of_slots([""] * cluster.num_workers, [""] * cluster.policy_learners)
    return places * config.loop.mae_steps_per_update


def shard_beside(node: str, index: int, shards_at: Sequence[str]) -> int:
    """The shard for whoever has this number on this node: on it if one is, else in turn."""
    own = [shard for shard, at in enumerate(shards_at) if at == node] or [*range(len(shards_at))]
    return own[index % len(own)]


def nodes_of_shards(count: int, gpu: float, nodes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The node of each shard and its policy learner: one for each node, largest first, in turn.

    Args:
        gpu: what a policy learner reserves of them.
        nodes: resources by node.
    """
    able = [name for name, has in nodes.items() if has.get("GPU", 0.0) >= gpu] or [*nodes]
    able.sort(key=lambda name: (-nodes[name].get("GPU", 0.0), -nodes[name].get("CPU", 0.0), name))
    return [able[shard % len(able)] for shard in range(count)]
