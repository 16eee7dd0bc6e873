"""Starts the side actors of a run: buffer, weight store, policy learner, log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import ray

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig
from tats_ray.runtime.actors.clip_decoder import ClipDecoderActor
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import PolicyLearnerActor
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.run_log import RunLog
from tats_ray.runtime.actors.ticketed_buffer import TicketedBuffer
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.driver import home
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
        return Peers(buffer=None, store=None, policy_learner=None, log=log, decoders=decoders)
    assert isinstance(config, RunConfig)  # the only kind of run with a policy
    max_bytes = cluster.buffer_mb * 2**20
    if placement.request.rollout.count:
        buffer = (
            ray.remote(TicketedBuffer)
            .options(**light)
            .remote(
                max_bytes=max_bytes,
                per_update=config.rollouts_per_update,
                max_staleness=config.loop.max_staleness,
            )
        )
    else:
        buffer = ray.remote(RolloutBuffer).options(**light).remote(max_bytes=max_bytes)
    store = ray.remote(WeightStore).options(**light).remote(num_kept=config.loop.max_staleness + 1)
    # Its GPU lies outside the resources of a sweep's trial, which are those of a light driver.
    policy = placement.request.policy
    where = {"scheduling_strategy": "DEFAULT"} if policy.gpu else {}
    learner = (
        ray.remote(PolicyLearnerActor)
        .options(**light, **where, num_gpus=policy.gpu)
        .remote(
            asdict(config),
            device=policy.device,
            threads=placement.threads * placement.num_workers,
        )
    )
    return Peers(buffer=buffer, store=store, policy_learner=learner, log=log, decoders=decoders)


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
