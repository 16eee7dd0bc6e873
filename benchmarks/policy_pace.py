"""Updates of the real policy learners, by the processor time that the busiest of them takes."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import ray
import torch
from tats_ray.benchmarks.bench_buffer import sized_rollout

from tats_ray.config.load import parse_config
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.zoo import SIZES
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import PolicyLearnerActor
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.workers.begin import begin_with

_TOKEN = "pace"
_DEADLINE_S = 600.0
_ROLLOUTS = 4
"""Of an update."""


class _Learner(PolicyLearnerActor):
    def cpu_s(self) -> float:
        return time.process_time()


def measure_updates(grid: TokenGrid, num_learners: int, *, rounds: int = 2) -> float:
    """Updates for each second of processor time of the busiest policy learner, at ViT-B sizes.

    Taking, unpacking, learning on one thread, averaging and publishing, of four clips an update;
    the first is not counted.
    """
    how = {"num_workers": _ROLLOUTS, "policy_learners": num_learners}
    config = parse_config({"algorithm": {"name": "ppo"}, "cluster": how})
    width = SIZES[config.model.size].width
    rollout = sized_rollout(grid, width, 1)
    tokens = torch.randn(1, grid.num_tokens, width, generator=stream(0, "bench", "tokens"))
    rollout = replace(rollout, tokens=tokens)
    light = {"num_cpus": 0}
    shard, learner = (ray.remote(kind).options(**light) for kind in (RolloutBuffer, _Learner))
    peers = Peers(
        log=None,
        store=ray.remote(WeightStore).options(**light).remote(),
        policy_learners=[
            learner.remote(asdict(config), device="cpu", threads=1) for _ in range(num_learners)
        ],
        shards=[shard.remote(max_bytes=2**31) for _ in range(num_learners)],
    )
    places, _ = begin_with(peers, _TOKEN, None, slots_at=[""] * _ROLLOUTS, timeout_s=_DEADLINE_S)
    spent = [0.0] * num_learners
    for version in range(rounds + 1):
        for slot, place in enumerate(places):
            made = replace(rollout, rank=slot, step=version, policy_version=version)
            ray.get(
                peers.shards[place].push.remote(
                    _TOKEN, version, made.to_arrays(), made.num_bytes, _DEADLINE_S
                ),
                timeout=_DEADLINE_S,
            )
        before = [ray.get(one.cpu_s.remote()) for one in peers.policy_learners]
        done = [
            one.update.remote(_TOKEN, version, places.count(place), _DEADLINE_S)
            for place, one in enumerate(peers.policy_learners)
        ]
        ray.get(done, timeout=_DEADLINE_S)
        after = [ray.get(one.cpu_s.remote()) for one in peers.policy_learners]
        if version:
            spent = [s + a - b for s, a, b in zip(spent, after, before, strict=True)]
    for actor in (*peers.policy_learners, *peers.shards, peers.store):
        ray.kill(actor)
    return rounds / max(spent)
