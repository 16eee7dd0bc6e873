"""`tats bench scale`: how many producers a buffer and its policy learners can serve."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import ray
import torch
from tats_ray.benchmarks.bench_buffer import SAMPLER, sized_rollout
from tats_ray.benchmarks.handover import bench_cluster
from tats_ray.benchmarks.producers import Flow, measure_flow

from tats_ray.config.load import parse_config
from tats_ray.config.schema import DataConfig, ModelConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.core.words import counted
from tats_ray.models.zoo import SIZES, build_learned_policy, token_grid
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.policy_learner_actor import PolicyLearnerActor
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.weight_store import WeightStore
from tats_ray.runtime.workers.begin import begin_with

_CLIPS_PER_UPDATE = 32
_TOKEN = "pace"
_DEADLINE_S = 600.0
_ROLLOUTS = 4
"""Of an update."""
_KNEE = 0.5
"""More producers are worth having while this share of what they add comes through."""


def bench_scale(
    producers: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    *,
    shards: Sequence[int] = (1,),
    clips: int = 2,
    period_s: float = 1.0,
    seconds: float = 6.0,
) -> list[Flow]:
    """Print a table, the knee, and the most that came through.

    Args:
        shards: of the buffer, each with a policy learner. Where there are several numbers, what a
            second of processor time brings is compared, of hand-over and of policy updates.
        clips: of a rollout, at ViT-B sizes; an update takes 32.
        period_s: between two rollouts of a producer.
    """
    model = ModelConfig()
    grid = token_grid(DataConfig(), model)
    rollout = sized_rollout(grid, SIZES[model.size].width, clips)
    weights = build_learned_policy(SAMPLER, model, grid, seed=0).state_dict()
    size = rollout.num_bytes / 1e6
    print(
        f"rollouts of {clips} clips, {size:.1f} MB, one per producer and {period_s:g} s; updates "
        f"of {_CLIPS_PER_UPDATE} clips; load {os.getloadavg()[0]:.1f}"
    )
    flows: dict[int, list[Flow]] = {}
    with bench_cluster(store_mb=2048):
        for count in shards:
            print(f"{counted(count, 'shard')}:\n{_HEAD}")
            flows[count] = []
            for number in producers:
                flow = measure_flow(
                    rollout,
                    weights,
                    num_producers=number,
                    per_update=max(count, min(_CLIPS_PER_UPDATE // clips, number)),
                    period_s=period_s,
                    seconds=seconds,
                    num_shards=count,
                )
                flows[count].append(flow)
                print(_row(flow, size, clips), flush=True)
            print(knee_in_words(flows[count], rollout.num_bytes))
        if len(shards) > 1:
            print(gain_in_words({n: best(found) * size for n, found in flows.items()}, "MB"))
            paces = {count: measure_updates(grid, count) for count in shards}
            print(gain_in_words(paces, "policy updates"))
    return [flow for found in flows.values() for flow in found]


_HEAD = (
    "producers  wanted/s  taken/s   MB/s  clips/s  updates/s  served  buffer MB  waiting  "
    "MB/cpu-s  busiest"
)


def _row(flow: Flow, size: float, clips: int) -> str:
    return (
        f"{flow.num_producers:>9}  {flow.wanted_per_s:>8.1f}  {flow.taken_per_s:>7.1f}  "
        f"{flow.taken_per_s * size:>5.0f}  {flow.taken_per_s * clips:>7.1f}  "
        f"{flow.updates_per_s:>9.2f}  {flow.share:>6.0%}  {flow.peak_bytes / 1e6:>9.0f}  "
        f"{flow.waiting:>7.0%}  {flow.taken_per_cpu_s * size:>8.0f}  {flow.busiest}"
    )


def best(flows: Sequence[Flow]) -> float:
    """Rollouts per second of processor time of the busiest process, with the most producers."""
    return flows[-1].taken_per_cpu_s


def gain_in_words(paces: Mapping[int, float], what: str) -> str:
    """What a second of the busiest process brings, by the number of shards."""
    first = next(iter(paces.values()))
    words = ", ".join(
        f"{pace:.3g} with {counted(count, 'shard')} ({pace / first:.2f}x)"
        for count, pace in paces.items()
    )
    return f"{what} per second of processor time of the busiest process: {words}"


def knee_in_words(flows: Sequence[Flow], num_bytes: int) -> str:
    """Up to how many producers more of them bring more, and the most that came through."""
    knee = flows[0]
    for flow in flows[1:]:
        gained = flow.taken_per_s - knee.taken_per_s
        if gained < _KNEE * (flow.wanted_per_s - knee.wanted_per_s):
            break
        knee = flow
    most = max(flow.taken_per_s for flow in flows)
    end = "" if knee is not flows[-1] else ", the most that was tried"
    return (
        f"knee: {knee.num_producers} producers{end}; more bring less than {_KNEE:.0%} of what they "
        f"make; at most {most:.1f} rollouts/s, {most * num_bytes / 1e6:.0f} MB/s, came through"
    )


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
