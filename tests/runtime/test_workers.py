"""Rollout workers: the run equals a written-out recipe, whoever makes the rollouts or dies."""

from __future__ import annotations

import os
import signal
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.state import list_actors
from torch import Tensor

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.schema import RunConfig
from tats_ray.core.seeds import derive, stream
from tats_ray.core.types import Rollout
from tats_ray.data.clip_lists import clip_dataset, read_lists
from tats_ray.data.sampler import ClipSampler
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.zoo import build_mae, build_policy, num_visible, token_grid
from tats_ray.ops.optim import adamw
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.runtime.resources.request import Bundle
from tats_ray.training.pretrain_build import Batches
from tats_ray.view.glossary import GLOSSARY
from tests.marks import IN_CLUSTER
from tests.runtime.test_recipe import recipe as learner_recipe
from tests.runtime.test_recipe import small_config, train

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


def worker_config(videos: SyntheticSet, run: Path, loop: Any, **cluster: Any) -> RunConfig:
    return small_config(
        videos,
        run,
        cluster={"cpus_per_worker": 0.5, "threads": 1, **cluster},
        loop={"source": "workers", **loop},
    )


def recipe(config: RunConfig) -> tuple[dict[str, Tensor], dict[str, Tensor], list[int]]:
    """MAE learners whose masks train it, and rollouts made apart; none of the loop's own code.

    Returns:
        Weights of both networks, and how old the judging MAE was at each update, MAE steps.
    """
    world, loop, seed = config.cluster.num_workers, config.loop, config.seed
    grid = token_grid(config.data, config.model)
    mae, judge = (build_mae(config.model, grid, seed=seed) for _ in range(2))
    policy = build_policy(config.sampler, config.model, grid, seed=seed)
    assert isinstance(policy, SamplerPolicy)
    acting, algorithm = deepcopy(policy), config.algorithm.build(policy)
    entries = read_lists(config.data).train
    ranks = [Batches(config, entries, rank=rank, world_size=world) for rank in range(world)]
    count, size = num_visible(config.sampler, grid), config.optim.batch_size
    other = derive(seed, "rollouts")
    shown = clip_dataset(config.data, entries, seed=other)
    order = ClipSampler(num_clips=len(entries), batch_size=size, seed=other)
    optimizer = adamw(mae, lr=1.0, betas=config.optim.betas, weight_decay=0.05)
    scale, per_epoch = size * world / 256, ranks[0].steps_per_epoch
    per_update = loop.mae_steps_per_update * world
    step, version, lags = 0, 0, []
    under_way: list[dict[str, Tensor]] = []

    def rollout(index: int, cycle_step: int, mae_step: int) -> Rollout:
        epoch, place = divmod(version * per_update + index, order.steps_per_epoch)
        order.set_epoch(epoch, place)
        clips = torch.stack([shown[key].pixels for key in next(iter(order))])
        tokens = judge.embed(clips)
        drawn = acting.act(tokens, count, generator=stream(seed, "rollout", version, index))
        with torch.no_grad():
            error = judge(clips, drawn.visible_idx).error
        return Rollout(
            tokens=tokens,
            visible_idx=drawn.visible_idx,
            log_prob=drawn.log_prob,
            value=drawn.value,
            reward=error,
            policy_version=version - len(under_way),
            step=cycle_step + index // world,
            rank=index % world,
            mae_step=mae_step,
        )

    for epoch in range(loop.epochs):
        memory: list[Rollout] = []
        judged_by: int | None = None  # runs save after every epoch, and begin anew from there
        for number, parts in enumerate(zip(*(b(epoch, 0) for b in ranks), strict=True)):
            learns = epoch >= loop.mae_only_epochs
            if learns and number % loop.mae_steps_per_update == 0:
                if judged_by is None or version % loop.publish_every == 0:
                    judge.load_state_dict(mae.state_dict())
                    judged_by = step
                made = [rollout(i, step, judged_by) for i in range(per_update)]
                lags.append(made[-1].mae_lag)
                memory = [
                    Rollout.concatenate(made[i : i + world]) for i in range(0, per_update, world)
                ]
            gradients = []
            for rank, batch in enumerate(parts):
                drawer = acting if learns else FixedPolicy(grid)
                generator = stream(seed, "draw", step, rank)
                drawn = drawer.act(mae.embed(batch.pixels), count, generator=generator)
                optimizer.zero_grad()
                mae(batch.pixels, drawn.visible_idx).loss.backward()
                gradients.append([p.grad.clone() for p in mae.parameters()])
            for parameter, *grads in zip(mae.parameters(), *gradients, strict=True):
                parameter.grad = sum(grad / world for grad in grads)
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(
                    step,
                    base=config.optim.base_lr * scale,
                    minimum=config.optim.min_lr * scale,
                    warmup_steps=round(config.optim.warmup_epochs * per_epoch),
                    total_steps=per_epoch * loop.epochs,
                )
            optimizer.step()
            step += 1
            is_last = number + 1 == per_epoch
            if learns and (is_last or (number + 1) % loop.mae_steps_per_update == 0):
                torch.set_num_threads(world)  # as many as the policy learner has
                algorithm.update(memory, generator=stream(seed, "update", version))
                torch.set_num_threads(1)
                version += 1
                under_way.append(deepcopy(policy.state_dict()))
            while len(under_way) > (0 if is_last else loop.max_staleness):
                acting.load_state_dict(under_way.pop(0))
    return mae.state_dict(), policy.state_dict(), lags


def assert_same(run: Path, expected: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    found = checkpoints.load(run)
    assert found.policy is not None
    differences = {
        name: (part["network"][name] - value).abs().max().item()
        for part, weights in zip((found.mae, found.policy), expected, strict=True)
        for name, value in weights.items()
        if not torch.equal(part["network"][name], value)
    }
    assert not differences


@pytest.mark.parametrize(
    ("learners", "workers", "staleness", "every"),
    [(2, 1, 0, 1), pytest.param(1, 2, 2, 2, marks=pytest.mark.long)],
)
def test_the_run_equals_the_recipe_bit_for_bit_with_any_number_of_workers(
    learners: int,
    workers: int,
    staleness: int,
    every: int,
    videos: SyntheticSet,
    run_folder: Path,
) -> None:
    config = worker_config(
        videos,
        run_folder,
        {"max_staleness": staleness, "publish_every": every},
        num_workers=learners,
        rollout_workers=workers,
    )
    outcome, events = train(config, run_folder)
    assert outcome.is_finished
    mae, policy, lags = recipe(config)
    assert_same(run_folder, (mae, policy))
    scalars: dict[str, list[float]] = {}
    for event in events:
        for name, value in event.get("metrics", {}).items():
            scalars.setdefault(name, []).append(value)
    assert set(scalars) <= set(GLOSSARY)
    assert max(scalars["policy/staleness"]) <= staleness
    assert max(scalars["policy/mae_lag"]) <= max(lags)
    for name in ("wait/workers", "wait/policy", "time/wait", "time/handover"):
        assert 0 <= min(scalars[name]) <= max(scalars[name]) <= 1, name
    assert max(scalars["buffer/bytes"]) > 0


def kill_worker() -> None:
    actors = list_actors(address=ray.get_runtime_context().gcs_address, limit=10_000)
    alive = [a for a in actors if a.class_name == "RolloutWorkerActor" and a.state == "ALIVE"]
    os.kill(alive[0].pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize(
    ("workers", "max_failures", "note"), [(1, 1, "has been restarted"), (2, 0, ", 1 left")]
)
def test_a_killed_worker_is_replaced_or_done_without_and_the_weights_stay_the_same(
    workers: int, max_failures: int, note: str, videos: SyntheticSet, run_folder: Path
) -> None:
    config = worker_config(
        videos,
        run_folder,
        {"max_staleness": 1, "epochs": 6},
        rollout_workers=workers,
        max_failures=max_failures,
    )
    events: list[launch.Event] = []

    def watch(event: launch.Event) -> None:
        is_first = not any(e["kind"] == "metrics" and e["step"] >= 8 for e in events)
        events.append(event)
        if is_first and event["kind"] == "metrics" and event["step"] >= 8:
            kill_worker()

    outcome = launch.run(config, run_folder, make_plan(config).placement, on_event=watch)
    assert outcome.is_finished
    notes = [event["text"] for event in events if event["kind"] == "note"]
    assert any(note in text for text in notes), notes
    assert [event["step"] for event in events if event["kind"] == "start"] == [0]
    assert_same(run_folder, recipe(config)[:2])


@pytest.mark.long
def test_the_loss_of_the_last_worker_ends_the_run_with_its_cause(
    videos: SyntheticSet, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = worker_config(videos, run_folder, {}, max_failures=0)
    placement = make_plan(config).placement
    monkeypatch.setattr(Bundle, "device", "no_such_device")
    with pytest.raises(
        launch.RunFailedError, match=r"lost rollout worker 0, the last one: .*no_such_device"
    ):
        launch.run(config, run_folder, placement, on_event=lambda event: None)


@pytest.mark.long
def test_policy_that_learns_inside_the_mae_learner_equals_the_recipe(
    videos: SyntheticSet, run_folder: Path
) -> None:
    """Nothing is copied between processes, and nothing else changes; updates held back or not."""
    config = small_config(
        videos,
        run_folder,
        cluster={"threads": 1, "policy_place": "learner"},
        loop={"max_staleness": 1},
    )
    outcome, _ = train(config, run_folder)
    assert outcome.is_finished
    assert_same(run_folder, learner_recipe(config))
