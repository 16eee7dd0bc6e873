"""Fewer ranks than slots: each goes through several batches in one step, and learns the same."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.ops.optim import adamw
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner
from tats_ray.training.rank_group import holds_everywhere
from tests.conftest import GRID, join_pair, random_clips, small_mae, small_policy

STEPS = 4


@pytest.mark.parametrize(
    ("slots", "is_every_batch"), [(1, True), (2, True), (3, True), (1, False), (3, False)]
)
def test_one_rank_with_all_slots_equals_a_rank_for_each(
    small_run: Any, slots: int, is_every_batch: bool
) -> None:
    """Two epochs of `STEPS` steps, the policy learning from every two."""
    loop = LoopConfig(
        epochs=2, mae_only_epochs=0, mae_steps_per_update=2, mae_step_every_batch=is_every_batch
    )
    optim = OptimConfig(batch_size=2, base_lr=0.1, warmup_epochs=0.5, clip_grad=0.5)
    run = small_run(
        loop=loop,
        algorithm=PPOConfig(lr=1e-3),
        optim=optim,
        slots=slots,
        batches_per_epoch=STEPS,
    )
    run.loop.run()
    assert (run.loop.at.step, len(run.metrics)) == (2 * STEPS, 2 * STEPS)
    assert run.client.updates == [(2, 2 * slots)] * STEPS
    mae, policy, losses = many_ranks(optim, slots=slots, is_every_batch=is_every_batch)
    found = run.weights()
    for prefix, expected in (("mae", mae), ("policy", policy)):
        for name, value in expected.items():
            torch.testing.assert_close(found[f"{prefix}.{name}"], value, atol=2e-6, rtol=0)
    assert [metrics["mae/loss"] for metrics in run.metrics] == pytest.approx(losses, abs=1e-5)


def many_ranks(
    optim: OptimConfig, *, slots: int, is_every_batch: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """The weights of both networks, and each step's loss, without any of the loop's own code."""
    mae, owned = small_mae(), small_policy()
    learner = PolicyLearner(owned, PPOConfig(lr=1e-3).build(owned), seed=0)
    acting, memory, losses = deepcopy(owned), [], []
    optimizer = adamw(mae, lr=1.0, betas=optim.betas, weight_decay=optim.weight_decay)
    parameters = list(mae.parameters())
    gradients: list[list[Tensor]] = []
    taken = 0
    for step in range(2 * STEPS):
        seen = []
        for slot in range(slots):
            name = ("batch", step // STEPS, step % STEPS, *([slot] if slot else []))
            clips = random_clips(*name)
            tokens = mae.embed(clips)
            selection = acting.act(tokens, 8, generator=stream(0, "draw", step, slot))
            scored = mae(clips, selection.visible_idx)
            gradients.append([g.clone() for g in torch.autograd.grad(scored.loss, parameters)])
            seen.append(scored.loss.item())
            memory.append(
                Rollout(
                    tokens=tokens.detach(),
                    visible_idx=selection.visible_idx,
                    log_prob=selection.log_prob,
                    value=selection.value,
                    reward=scored.error.detach(),
                    policy_version=learner.version,
                    step=step,
                    rank=slot,
                )
            )
        losses.append(sum(seen) / slots)
        if is_every_batch or step % 2:
            for parameter, *parts in zip(parameters, *gradients, strict=True):
                parameter.grad = torch.stack(parts).mean(0)
            gradients = []
            nn.utils.clip_grad_norm_(parameters, optim.clip_grad)
            scale = optim.batch_size * slots / 256
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(
                    taken,
                    base=optim.base_lr * scale,
                    minimum=optim.min_lr * scale,
                    warmup_steps=round(optim.warmup_epochs * STEPS),
                    total_steps=2 * STEPS,
                )
            optimizer.step()
            taken += 1
        if step % 2:
            learner.update(memory)
            acting.load_state_dict(learner.weights())
            memory = []
    return mae.state_dict(), owned.state_dict(), losses


def learn(world: int, rank: int, wrapped: Any, meet: Any = None) -> dict[str, Tensor]:
    """One rank's share of three slots."""
    mae = small_mae()
    slots = range(rank, 3, world)
    learner = MAELearner(
        mae,
        OptimConfig(batch_size=2, base_lr=1.0, warmup_epochs=0, clip_grad=0.1),
        steps_per_epoch=STEPS,
        total_steps=STEPS,
        global_batch=6,
        wrapped=wrapped(mae),
        all_finite=meet,
        weight=world / 3,
    )
    for step in range(STEPS):
        learner.accumulation_steps = 1 + step % 2
        for part in range(learner.accumulation_steps):
            for index, slot in enumerate(slots):
                clips = random_clips("slots", step, part, slot)
                draw = torch.rand(2, GRID.num_tokens, generator=stream(0, "slots", step, slot))
                learner.begin_slot(index, len(slots))
                learner.learn(clips, draw.argsort(1)[:, :8])
    assert learner.step == STEPS
    return mae.state_dict()


def of_two(rank: int, folder: str) -> None:
    join_pair(rank, folder)
    found = learn(2, rank, DistributedDataParallel, holds_everywhere)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(120)
def test_two_ranks_with_three_slots_equal_one_rank_with_three(tmp_path: Path) -> None:
    """Two of them on one rank, which must count no more than the one on the other."""
    spawn(of_two, args=(str(tmp_path),), nprocs=2)
    expected = learn(1, 0, lambda mae: mae)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, atol=2e-6, rtol=0)


@pytest.mark.parametrize("bad", range(3))
def test_loss_that_is_not_finite_in_any_slot_ends_the_step_before_its_update(
    small_run: Any, bad: int
) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=1), slots=3)
    asked: list[bool] = []
    run.learner.all_finite = lambda is_finite: asked.append(bool(is_finite)) or is_finite
    network = run.learner.network

    class Poisoned(nn.Module):
        calls = 0

        def forward(self, *args: Tensor) -> Any:
            seen = network(*args)
            self.calls += 1
            # In the second step: the first has rate 0 and changes nothing anyway.
            return replace(seen, error=seen.error * math.nan) if self.calls == 4 + bad else seen

    run.learner.network = Poisoned()
    start = run.weights()
    with pytest.raises(NonFiniteError, match="at its step 1"):
        run.loop.run()
    # Once in a step, as ranks may have different numbers of slots; told at the epoch's end.
    assert asked == [True, False, True, True]
    assert all(torch.equal(value, start[name]) for name, value in run.weights().items())
