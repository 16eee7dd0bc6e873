"""The benchmarks of the hand-over run on the real actors, at the size of a test."""

from __future__ import annotations

import pytest
import torch
from tats_ray.benchmarks.bench_buffer import sized_rollout
from tats_ray.benchmarks.handover import measure_handover
from tats_ray.benchmarks.producers import measure_flow

from tats_ray.core.grid import TokenGrid
from tests.marks import IN_CLUSTER

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(120)]
ROLLOUT = sized_rollout(TokenGrid(num_frames=4, image_size=32, patch=8), 16, 2)
WEIGHTS = {"weight": torch.zeros(100)}


def test_every_part_of_the_hand_over_takes_time() -> None:
    (found,) = measure_handover(ROLLOUT, WEIGHTS, rounds=1)
    parts = (found.push_s, found.take_s, found.publish_s, found.fetch_s)
    assert min(parts) > 0
    assert found.total_s == sum(parts)


@pytest.mark.long
@pytest.mark.parametrize("num_shards", [1, 2])
def test_no_more_comes_through_than_producers_make_nor_is_more_held_than_tickets_allow(
    num_shards: int,
) -> None:
    flow = measure_flow(
        ROLLOUT,
        WEIGHTS,
        num_producers=3,
        per_update=2,
        period_s=0.2,
        seconds=1.0,
        num_shards=num_shards,
    )
    assert flow.taken_per_cpu_s > 0
    assert flow.taken_per_s > 0
    assert flow.updates_per_s == pytest.approx(flow.taken_per_s / 2)
    assert 0 < flow.peak_bytes <= (2 + 2) * 2 * ROLLOUT.num_bytes
    assert 0 <= flow.waiting <= 1
