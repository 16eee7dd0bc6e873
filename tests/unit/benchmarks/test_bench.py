"""What the benchmarks make of what they measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tats_ray.benchmarks.bench_buffer import SAMPLER, sized_rollout
from tats_ray.benchmarks.bench_overlap import Throughput, read_pace
from tats_ray.benchmarks.bench_scale import gain_in_words, knee_in_words
from tats_ray.benchmarks.producers import Flow

from tats_ray.config.schema import DataConfig, LoopConfig, ModelConfig, OptimConfig, RunConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.models.zoo import build_mae, build_policy, count_parameters, token_grid
from tats_ray.runtime.resources.cost_model import Figures, clips_that_fit, needs


def test_pace_is_of_the_steps_after_the_first_epochs_and_knows_the_limit() -> None:
    def record(step: int, time: float, wait: float) -> dict[str, Any]:
        metrics = {"time/wait": wait, "policy/staleness": 1.0, "mae/loss": 1.0}
        return {"kind": "metrics", "step": step, "time": time, "metrics": metrics}

    events = [
        {"kind": "start", "step": 0, "time": 0.0},
        record(6, 100.0, 0.9),  # start-up and decoding
        record(12, 110.0, 0.9),
        record(18, 113.0, 0.5),
        {"kind": "metrics", "step": 18, "time": 114.0, "metrics": {"eval/error": 1.0}},
        record(24, 116.0, 0.3),
    ]
    pace = read_pace(events, 32)
    assert pace.clips_per_s == pytest.approx(12 * 32 / 6)
    assert pace.step_s == pytest.approx(0.5)
    assert pace.wait_s == pytest.approx(0.2)
    assert pace.max_staleness == 1
    # 0.3 s of autoencoder and 0.2 s of policy: at best the longer of the two is left.
    assert pace.limit == pytest.approx(0.5 / 0.3)
    assert Throughput(1, 1.0, 0.5, 0).limit == 2.0


def flow(producers: int, taken: float) -> Flow:
    return Flow(producers, float(producers), taken, 1.0, 10**6, 0.1, 2 * taken, "shard 0")


def test_knee_is_where_more_producers_stop_to_bring_half_of_what_they_make() -> None:
    flows = [flow(1, 1.0), flow(2, 1.9), flow(4, 3.0), flow(8, 4.9), flow(16, 9.5)]
    assert knee_in_words(flows, 2_000_000) == (
        "knee: 4 producers; more bring less than 50% of what they make; at most 9.5 rollouts/s, "
        "19 MB/s, came through"
    )
    assert "knee: 4 producers, the most that was tried" in knee_in_words(flows[:3], 1)


def test_gain_is_told_against_the_first_number_of_shards() -> None:
    assert gain_in_words({1: 500.0, 2: 950.0}, "MB") == (
        "MB per second of processor time of the busiest process: 500 with 1 shard (1.00x), "
        "950 with 2 shards (1.90x)"
    )


def test_sized_rollout_has_the_bytes_of_the_papers_clips() -> None:
    rollout = sized_rollout(TokenGrid(num_frames=16, image_size=224), 768, 2)
    assert rollout.tokens.nbytes / 2 == 1568 * 768 * 2
    assert rollout.num_bytes / 2 == pytest.approx(Figures().clip_bytes, rel=0.01)


def test_networks_have_the_bytes_that_the_cost_model_counts() -> None:
    model = ModelConfig()
    grid = token_grid(DataConfig(), model)
    with torch.device("meta"):
        mae = build_mae(model, grid, seed=0)
        policy = build_policy(SAMPLER, model, grid, seed=0)
    assert isinstance(policy, torch.nn.Module)
    assert 4 * count_parameters(mae) == pytest.approx(Figures().mae_bytes, rel=0.001)
    assert 4 * count_parameters(policy) == pytest.approx(Figures().weight_bytes, rel=0.002)


SMALL = Figures(
    clips_per_gpu_s=100,
    clips_per_step=20,
    decode_clips_per_core_s=10,
    cores_per_gpu=5,
    clip_bytes=1e6,
    mae_bytes=1e7,
    weight_bytes=1e6,
    handover_bytes_s=1e8,
    policy_clips_s=400,
    node_bytes_s=1e9,
)


def test_costs_grow_with_the_gpus_and_fall_with_the_fraction_and_the_steps_per_update() -> None:
    figures = SMALL
    alone = needs(figures, 1)
    assert alone.loads == {
        "decoding": 2.0,  # 10 cores for the 5 there are
        "hand-over": 1.0,
        "policy learner": 0.25,
        "network": 0.0,  # one node
    }
    assert (alone.updates_per_s, alone.bottleneck) == (5.0, "decoding")
    many = needs(figures, 64)
    assert many.bottleneck == "hand-over"
    assert many.loads["hand-over"] == 64.0
    assert many.gradient_bytes_s == pytest.approx(2 * 7 / 8 * 5 * 1e7)
    assert many.loads["network"] == pytest.approx((64 * 1e8 * 7 / 8 + 8.75e7) / 1e9)
    assert many.weight_bytes_s == 5e6
    assert many.loads["decoding"] == alone.loads["decoding"]  # cores come with the GPUs
    less = needs(figures, 64, fraction=0.25, steps_per_update=5)
    assert less.loads["hand-over"] == 16.0
    assert less.updates_per_s == 1.0
    assert less.gradient_bytes_s == many.gradient_bytes_s  # of every step


def test_few_rollouts_leave_the_gradients_and_the_weights_for_every_other_node() -> None:
    asked = needs(SMALL, 64, fraction=1e-9)
    assert asked.loads["network"] == pytest.approx((8.75e7 + 7 * 5e6) / 1e9)


def test_shards_on_all_nodes_share_all_but_the_gradients_of_both_networks() -> None:
    one, many = needs(SMALL, 8), needs(SMALL, 64, shards=8)
    for load in ("decoding", "hand-over", "policy learner"):
        assert many.loads[load] == one.loads[load]
    assert many.loads["network"] == pytest.approx(2 * 7 / 8 * (5 * 1e7 + 5 * 1e6) / 1e9)
    assert many.weight_bytes_s == 0.0
    seldom = needs(SMALL, 64, shards=8, steps_per_update=5)
    assert seldom.loads["network"] == pytest.approx(2 * 7 / 8 * (5 * 1e7 + 1e6) / 1e9)


def test_two_shards_of_eight_nodes_take_halves_of_which_a_quarter_is_their_own() -> None:
    one, two = needs(SMALL, 64), needs(SMALL, 64, shards=2)
    for load in ("hand-over", "policy learner"):
        assert two.loads[load] == one.loads[load] / 2
    rollouts, own = 64 * 1e8 / 2, 64 * 1e8 / 8
    assert two.loads["network"] == pytest.approx((rollouts - own + 8.75e7 + 5e6) / 1e9)
    few = needs(SMALL, 64, fraction=1e-9, shards=2)
    assert few.loads["network"] == pytest.approx((8.75e7 + 5e6 + 3 * 5e6) / 1e9)
    assert needs(SMALL, 64, place="learner", shards=8).loads["policy learner"] == 0.0


def test_whole_clips_of_a_batch_fit_or_none() -> None:
    assert clips_that_fit(SMALL, 1, load="policy learner") == 20  # all
    assert clips_that_fit(SMALL, 1, load="hand-over") == 20  # a load of just 1
    assert clips_that_fit(SMALL, 8, load="hand-over") == 2  # 1/8 would be 2.5
    assert clips_that_fit(SMALL, 20, load="hand-over") == 1
    assert clips_that_fit(SMALL, 64, load="hand-over") == 0
    assert clips_that_fit(SMALL, 64, load="hand-over", shards=8) == 2
    # What the loop makes of the page's fraction is as many clips again.
    figures = Figures()
    clips = clips_that_fit(figures, 8, load="hand-over")
    share = clips / figures.clips_per_step
    loop, optim = LoopConfig(rollout_fraction=share), OptimConfig(batch_size=figures.clips_per_step)
    assert RunConfig(loop=loop, optim=optim).clips_per_rollout == clips == 1
