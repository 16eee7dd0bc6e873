"""`--dry-run`: what a run would take in time and memory, measured on a few steps in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig
from tats_ray.core.devices import Precision, autocast, torch_threads
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import (
    build_mae,
    build_policy,
    count_parameters,
    new_classifier,
    token_grid,
)
from tats_ray.runs.finetune_plan import FinetunePlan
from tats_ray.runs.pretrain_plan import Plan, make_plan
from tats_ray.runs.step_timing import time_steps
from tats_ray.runtime.resources.placement import is_private
from tats_ray.training.finetune_build import finetune_batches
from tats_ray.training.finetune_loop import ClassifierLearner
from tats_ray.view.progress import format_duration

_NUM_STEPS = 3
_STATE_BYTES = 16
"""Of a parameter: weight, gradient and two moments, all in float32."""
_GB = 1e9


def plan_anywhere(config: RunConfig) -> tuple[Plan, str]:
    """The plan of a run, and why this machine cannot hold it; empty where it can.

    Raises:
        UsageError: for what is wrong on any machine.
    """
    try:
        return make_plan(config), ""
    except UsageError as error:
        elsewhere = replace(config.cluster, address="of the plan alone")
        return make_plan(replace(config, cluster=elsewhere)), str(error)


def pretrain_forecast(
    plan: Plan, problem: str = "", *, epochs_done: int = 0
) -> Iterator[tuple[str, str]]:
    """(what, how much) of the time and the memory of pre-training.

    Args:
        problem: why this machine cannot hold the run; then no step is timed here.
        epochs_done: of a run that goes on; the time is that of the others.
    """
    config, grid = plan.config, token_grid(plan.config.data, plan.config.model)
    mae = build_mae(config.model, grid, seed=config.seed)
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    shards = config.cluster.num_workers if config.cluster.sharding == "fsdp" else 1
    visible = torch.arange(plan.num_visible)
    kept = _kept_bytes(
        mae,
        lambda clips: mae(clips, visible.expand(len(clips), -1)).loss,
        grid,
        config.loop.precision,
    )
    yield _memory("MAE learner", mae, kept, config.optim.batch_size, shards=shards)
    if is_learned(policy):
        size = count_parameters(policy) * _STATE_BYTES / _GB
        rollouts = plan.rollout_bytes * config.cluster.policy_learners / _GB
        yield (
            "memory",
            (
                f"policy learner: {size:.2g} GB of weights, gradients and moments; object store: "
                f"{rollouts:.2g} GB of rollouts at most"
            ),
        )
    if problem or not is_private(config):
        yield "time", _not_timed(config, problem)
        return
    pace = time_steps(config, plan.placement.threads)
    seconds = pace.trial_s(_remaining(config, epochs_done), plan.steps_per_epoch, 0)
    yield (
        "time",
        (
            f"about {format_duration(seconds)} of training, without start and validation; an MAE "
            f"step takes {pace.mae_step_s:.2g} s, {pace.joint_step_s:.2g} s with the sampler, and "
            f"reading a batch {pace.clips_s:.2g} s"
        ),
    )


def _remaining(config: RunConfig, epochs_done: int) -> RunConfig:
    """A run of the epochs that are left."""
    loop = config.loop
    left = replace(
        loop,
        epochs=loop.epochs - epochs_done,
        mae_only_epochs=max(loop.mae_only_epochs - epochs_done, 0),
    )
    return replace(config, loop=left)


def finetune_forecast(plan: FinetunePlan, *, epochs_done: int = 0) -> Iterator[tuple[str, str]]:
    """(what, how much) of the time and the memory of fine-tuning; as `pretrain_forecast`."""
    config = plan.config
    # A learner of a cluster may be on a GPU that this machine does not have.
    device = torch.device(plan.placement.request.learners.device if is_private(config) else "cpu")
    network = new_classifier(config).to(device)
    learner = ClassifierLearner(network, config, steps_per_epoch=plan.steps_per_epoch)
    kept = _kept_bytes(
        network,
        lambda clips: network(learner.pixels(clips)).sum(),
        network.grid,
        config.optim.precision,
    )
    yield _memory("learner", network, kept, config.optim.batch_size)
    if not is_private(config):
        yield "time", _not_timed(config, "")
        return
    alone = replace(config, data=replace(config.data, num_workers=0))
    with torch_threads(plan.placement.threads):
        started = time.perf_counter()
        batch = next(finetune_batches(alone, plan.lists.train)(0, 0))
        reading = time.perf_counter() - started
        step = _step_s(lambda: learner.learn(batch.pixels, batch.label))
    workers = config.data.num_workers
    each = max(step, reading / workers) if workers else step + reading
    num_steps = plan.steps_per_epoch * (config.optim.epochs - epochs_done)
    yield (
        "time",
        (
            f"about {format_duration(each * num_steps)} of training, without start and "
            f"validation; a step takes {step:.2g} s, and reading a batch {reading:.2g} s"
        ),
    )


def _kept_bytes(
    network: nn.Module, loss: Callable[[Tensor], Tensor], grid: TokenGrid, precision: Precision
) -> tuple[int, int]:
    """Bytes that the backward pass keeps, parameters apart: of each clip, and of any number.

    The second are copies of the weights in another precision, above all.
    """
    device = next(network.parameters()).device
    one, two = (
        _bytes_of(network, loss, torch.zeros(shape, dtype=torch.uint8, device=device), precision)
        for shape in ((1, *grid.clip_shape), (2, *grid.clip_shape))
    )
    return two - one, 2 * one - two


def _bytes_of(
    network: nn.Module, loss: Callable[[Tensor], Tensor], clips: Tensor, precision: Precision
) -> int:
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other tensor gets its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast(clips.device, precision):
        loss(clips)
    return sum(kept.values())


def _memory(
    who: str, network: nn.Module, kept: tuple[int, int], batch_size: int, *, shards: int = 1
) -> tuple[str, str]:
    """The least that a learner takes, by batch size."""
    states, (each, once) = count_parameters(network) * _STATE_BYTES / shards, kept
    sizes = sorted({max(batch_size // 2, 1), batch_size, 2 * batch_size})
    by_size = ", ".join(
        f"{(states + once + size * each) / _GB:.3g} GB with {counted(size, 'clip')}"
        for size in sizes
    )
    return "memory", (
        f"{who}: at least {by_size}; {states / _GB:.2g} GB of weights, gradients and "
        f"moments, and for the backward pass {each / 1e6:.3g} MB per clip and {once / 1e6:.3g} MB "
        "for all; working space, CUDA itself and videos come on top"
    )


def _not_timed(config: Clustered, problem: str) -> str:
    if problem:
        return f"not measured, since this machine cannot hold the run: {problem}"
    return "not measured: the run would join a cluster"


def _step_s(step: Callable[[], object]) -> float:
    """Seconds of a step that ends with numbers on the CPU, after a first one that is not timed."""
    step()
    started = time.perf_counter()
    for _ in range(_NUM_STEPS):
        step()
    return (time.perf_counter() - started) / _NUM_STEPS
