"""A sharded autoencoder against a replicated one, in two real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.config.schema import OptimConfig
from tats_ray.models.sharding import shard
from tats_ray.training.mae_learner import MAELearner
from tests.conftest import GRID, join_pair, random_clips, small_mae

pytestmark = pytest.mark.timeout(120)
STEPS = 4


def learner(*, is_sharded: bool) -> MAELearner:
    mae = small_mae()
    if is_sharded:
        shard(mae, 2)
    one = MAELearner(
        mae,
        OptimConfig(batch_size=2, base_lr=1.0, warmup_epochs=0, clip_grad=0.1),
        steps_per_epoch=STEPS,
        total_steps=2 * STEPS,
        global_batch=4,
        wrapped=mae if is_sharded else DistributedDataParallel(mae),
    )
    one.folds_scale = is_sharded  # as on a GPU
    return one


def train(one: MAELearner, rank: int, first: int) -> list[tuple[float, float]]:
    """`STEPS` steps of two batches each, each rank on clips of its own."""
    seen = []
    for step in range(first, first + STEPS):
        one.accumulation_steps = 1 + step % 2
        for part in range(one.accumulation_steps):
            clips = random_clips("sharding", step, part, rank)
            generator = torch.Generator().manual_seed(step * 10 + rank)
            masks = torch.rand(2, GRID.num_tokens, generator=generator).argsort(1)[:, :8]
            one.embed(clips)
            one.score(clips, masks)
            found = one.learn(clips, masks)
        seen.append((found.loss, found.grad_norm))
    return seen


def two_runs(rank: int, folder: str) -> None:
    """Replicated throughout; sharded for half, saved, loaded by a fresh one, sharded on."""
    join_pair(rank, folder)
    replicated, sharded = learner(is_sharded=False), learner(is_sharded=True)
    expected = train(replicated, rank, 0)
    found = train(sharded, rank, 0)
    held = sum(p.to_local().numel() for p in sharded.mae.parameters())  # type: ignore[attr-defined]
    # Each goes on from what the other saved.
    saved = {"replicated": replicated.state_dict(), "sharded": sharded.state_dict()}
    replicated, sharded = learner(is_sharded=False), learner(is_sharded=True)
    replicated.load_state_dict(saved["sharded"])
    sharded.load_state_dict(saved["replicated"])
    expected += train(replicated, rank, STEPS)
    found += train(sharded, rank, STEPS)
    ends = [replicated.state_dict(), sharded.state_dict()]
    torch.save((expected, found, ends, held), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_sharded_autoencoder_learns_what_a_replicated_one_does_and_they_exchange_checkpoints(
    tmp_path: Path,
) -> None:
    spawn(two_runs, args=(str(tmp_path),), nprocs=2)
    num_weights = sum(p.numel() for p in small_mae().parameters())
    held_by_all = 0
    for rank in range(2):
        expected, found, (replicated, sharded), held = torch.load(
            tmp_path / f"{rank}.pt", weights_only=True
        )
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-6, rtol=0)
        assert_equal(sharded["network"], replicated["network"])
        for index, slots in replicated["optimizer"]["state"].items():
            assert_equal(sharded["optimizer"]["state"][index], slots)
        assert held < 0.6 * num_weights
        held_by_all += held
    assert held_by_all == num_weights


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(found[name], Tensor)
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=0, msg=lambda m, n=name: n)
