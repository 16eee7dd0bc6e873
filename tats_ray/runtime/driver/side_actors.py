"""Starts the side actors of a run: buffer, weight store, policy learners, desk, log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig
from tats_ray.runtime.actors.clip_decoder import ClipDecoderActor
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import PolicyLearnerActor
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.run_log import RunLog
from tats_ray.runtime.actors.ticket_desk import TicketDesk
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.driver import home
from tats_ray.runtime.resources.buffer_shards import nodes_of_shards, places_of_update
from tats_ray.runtime.resources.capacity import for_decoding, on_this_node
from tats_ray.runtime.resources.placement import Placement
from tats_ray.runtime.resources.request import Bundle


def start_peers(config: Clustered, placement: Placement) -> Peers:
    """Start the side actors. This driver owns them: they outlive a restart of the learners.

    One that dies is started anew, empty. The call that met its death fails, so the learners are
    restarted too, and bring all of them back to the last checkpoint. Nothing is retried alone.
    """
    cluster = config.cluster
    light = {"num_cpus": 0, "max_restarts": cluster.max_failures, "max_task_retries": 0}
    # Beside the driver, so that no lost worker node takes it away.
    log = ray.remote(RunLog).options(**light, scheduling_strategy=on_this_node()).remote()
    decoders = _start_decoders(config, placement.request.decode, log)
    if not placement.learns_policy or cluster.policy_place == "learner":
        return Peers(log, decoders=decoders)
    assert isinstance(config, RunConfig)  # the only kind of run with a policy
    staleness = config.loop.max_staleness
    where = _places(placement)
    shard, desk = ray.remote(RolloutBuffer), None
    shards = [
        shard.options(**light, **at).remote(max_bytes=cluster.buffer_mb * 2**20) for at in where
    ]
    if placement.request.rollout.count:
        desk = (
            ray.remote(TicketDesk)
            .options(**light)
            .remote(
                places=places_of_update(config),
                max_staleness=staleness,
                num_workers=placement.request.rollout.count,
            )
        )
    store = ray.remote(WeightStore).options(**light).remote(num_kept=staleness + 1)
    learners = _policy_learners(config, placement, light, where)
    return Peers(log, store, learners, shards, desk, decoders)


def _policy_learners(
    config: RunConfig,
    placement: Placement,
    light: dict[str, Any],
    where: Sequence[dict[str, Any]],
) -> list[Any]:
    policy, count = placement.request.policy, len(where)
    at_once = placement.threads * placement.num_workers
    kind = ray.remote(PolicyLearnerActor)
    return [
        # Its GPU lies outside the resources of a sweep's trial, which are those of a light driver.
        kind.options(
            **light,
            **(at or {"scheduling_strategy": "DEFAULT"} if policy.gpu else at),
            num_gpus=policy.gpu,
        ).remote(
            asdict(config),
            device=policy.device,
            threads=max(at_once // count, 1) if at_once else 0,
            num_neighbours=sum(one is at for one in where),
        )
        for at in where
    ]


def _places(placement: Placement) -> list[dict[str, Any]]:
    """Of each shard with its policy learner: on one node, and on another one than the others.

    Softly, so that both come back elsewhere once that node is gone.
    """
    policy = placement.request.policy
    if policy.count == 1:
        return [{}]
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    found = nodes_of_shards(policy.count, policy.gpu, nodes)
    at = {
        name: {"scheduling_strategy": NodeAffinitySchedulingStrategy(name, soft=True)}
        for name in found
    }
    return [at[name] for name in found]


def _start_decoders(config: Clustered, each: Bundle, log: Any) -> list[Any]:
    """One that dies is started anew, on any node that has room, as often as it takes: it holds
    nothing, and the readers ask others meanwhile.
    """
    kind = ray.remote(ClipDecoderActor).options(
        num_cpus=each.cpu,
        resources=for_decoding(),
        max_restarts=-1,
        max_task_retries=0,
        scheduling_strategy="SPREAD",
    )
    return [kind.remote(asdict(config), log, started_in=home.here()) for _ in range(each.count)]
