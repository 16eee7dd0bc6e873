"""Starts the side actors of a run: buffer, weight store, policy learner, log."""

from __future__ import annotations

from dataclasses import asdict

import ray

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import PolicyLearnerActor
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.run_log import RunLog
from tats_ray.runtime.actors.ticketed_buffer import TicketedBuffer
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.resources.capacity import on_this_node
from tats_ray.runtime.resources.placement import Placement


def start_peers(config: Clustered, placement: Placement) -> Peers:
    """Start the side actors. This driver owns them: they outlive a restart of the learners.

    One that dies is started anew, empty. The call that met its death fails, so the learners are
    restarted too, and bring all of them back to the last checkpoint. Nothing is retried alone.
    """
    cluster = config.cluster
    light = {"num_cpus": 0, "max_restarts": cluster.max_failures, "max_task_retries": 0}
    # Beside the driver, so that no lost worker node takes it away.
    log = ray.remote(RunLog).options(**light, scheduling_strategy=on_this_node()).remote()
    if not placement.learns_policy or cluster.policy_place == "learner":
        return Peers(buffer=None, store=None, policy_learner=None, log=log)
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
    return Peers(buffer=buffer, store=store, policy_learner=learner, log=log)
