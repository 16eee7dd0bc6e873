"""`tats bench scale`: how many producers one buffer and one policy learner can serve."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tats_ray.benchmarks.bench_buffer import SAMPLER, sized_rollout
from tats_ray.benchmarks.handover import bench_cluster
from tats_ray.benchmarks.producers import Flow, measure_flow

from tats_ray.config.schema import DataConfig, ModelConfig
from tats_ray.models.zoo import SIZES, build_learned_policy, token_grid

_CLIPS_PER_UPDATE = 32
_KNEE = 0.5
"""More producers are worth having while this share of what they add comes through."""


def bench_scale(
    producers: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    *,
    clips: int = 2,
    period_s: float = 1.0,
    seconds: float = 6.0,
) -> list[Flow]:
    """Print a table, the knee, and the most that came through.

    Args:
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
    print("producers  wanted/s  taken/s   MB/s  clips/s  updates/s  served  buffer MB  waiting")
    flows = []
    with bench_cluster(store_mb=2048):
        for number in producers:
            flow = measure_flow(
                rollout,
                weights,
                num_producers=number,
                per_update=max(1, min(_CLIPS_PER_UPDATE // clips, number)),
                period_s=period_s,
                seconds=seconds,
            )
            flows.append(flow)
            print(
                f"{number:>9}  {flow.wanted_per_s:>8.1f}  {flow.taken_per_s:>7.1f}  "
                f"{flow.taken_per_s * size:>5.0f}  {flow.taken_per_s * clips:>7.1f}  "
                f"{flow.updates_per_s:>9.2f}  {flow.share:>6.0%}  {flow.peak_bytes / 1e6:>9.0f}  "
                f"{flow.waiting:>7.0%}",
                flush=True,
            )
    print(knee_in_words(flows, rollout.num_bytes))
    return flows


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
