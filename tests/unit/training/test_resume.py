"""A run that stops and goes on ends where the one that did not stop ends, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.checkpoints.format import load, save
from tats_ray.config.schema import AlgorithmConfig, LoopConfig
from tats_ray.training.pretrain_loop import PretrainLoop

TWO_STEP_PPO = PPOConfig(lr=1e-2, policy_coef=1.0, update_steps=2, entropy_coef=0.05)


def ends_equal(one: Any, other: Any) -> None:
    left, right = one.weights(), other.weights()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert one.loop.at == other.loop.at
    for state in ("mae", "policy"):
        kept = dict(getattr(one.checkpoint(), state))
        again = dict(getattr(other.checkpoint(), state))
        assert kept["numbers"] == again["numbers"]
        for index, slots in kept["optimizer"]["state"].items():
            for slot, value in slots.items():
                assert isinstance(value, Tensor)
                assert torch.equal(value, again["optimizer"]["state"][index][slot])


@pytest.mark.parametrize(
    ("algorithm", "every_batch", "per_update"),
    [(TWO_STEP_PPO, True, 2), (TWO_STEP_PPO, False, 2), (ReinforceConfig(lr=1e-2), True, 1)],
)
def test_run_continued_from_any_checkpoint_ends_as_the_run_that_never_stopped(
    small_run: Any,
    tmp_path: Path,
    algorithm: AlgorithmConfig,
    every_batch: bool,
    per_update: int,
) -> None:
    # Three epochs of five batches: one without the policy; then updates after 2, 4 and 5.
    settings = {
        "loop": LoopConfig(
            epochs=3,
            mae_only_epochs=1,
            mae_steps_per_update=per_update,
            mae_step_every_batch=every_batch,
        ),
        "algorithm": algorithm,
        "batches_per_epoch": 5,
    }
    straight = small_run(**settings)
    straight.loop.run()

    saving = small_run(**settings)

    def save_where_nothing_is_pending(loop: PretrainLoop) -> None:
        if not loop.num_pending and not saving.learner.pending:
            save(tmp_path / f"batch_{loop.at.step}", saving.checkpoint(), keep_last=1)

    saving.after_batch = save_where_nothing_is_pending
    saving.on_epoch = lambda loop: save(
        tmp_path / f"epoch_{loop.at.epoch}", saving.checkpoint(), keep_last=1
    )
    saving.loop.run()
    ends_equal(straight, saving)

    points = sorted(path.name for path in tmp_path.iterdir())
    middle = {f"batch_{step}" for step in ((2, 7, 9, 14) if per_update == 2 else (2, 8, 13))}
    assert middle | {"epoch_1", "epoch_2", "batch_5"} <= set(points)
    for point in points:
        resumed = small_run(**settings)
        resumed.restore(load(tmp_path / point))
        resumed.loop.run()
        ends_equal(straight, resumed)
        for name in ("mae/loss", "mae/lr", "env/reward", "policy/loss", "policy/entropy"):
            rest = straight.metrics[15 - len(resumed.metrics) :]
            assert [m.get(name) for m in resumed.metrics] == [m.get(name) for m in rest]


def test_lost_moments_of_the_optimiser_would_show(small_run: Any, tmp_path: Path) -> None:
    # The comparison above is worth what it can see: forget one thing, and the ends differ.
    settings = {"loop": LoopConfig(epochs=2, mae_only_epochs=0), "algorithm": TWO_STEP_PPO}
    first = small_run(**settings)
    first.on_epoch = lambda loop: save(
        tmp_path / str(loop.at.epoch), first.checkpoint(), keep_last=1
    )
    first.loop.run()
    resumed = small_run(**settings)
    resumed.restore(load(tmp_path / "1"))
    resumed.policy_learner.algorithm.optimizer.state.clear()
    resumed.loop.run()
    with pytest.raises(AssertionError):
        ends_equal(first, resumed)
