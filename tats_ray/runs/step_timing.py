"""Estimate how long a run takes: time a few real steps in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from tats_ray.config.schema import LoopConfig, RunConfig
from tats_ray.core.devices import torch_threads
from tats_ray.core.grid import TokenGrid
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.features import FeatureRequest, FrozenEncoder, compute
from tats_ray.models.policy import FixedPolicy, is_learned
from tats_ray.models.zoo import build_mae, build_policy, num_visible, token_grid
from tats_ray.runtime.resources.request import ResourceRequest
from tats_ray.training.environments import make_env
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyLearner
from tats_ray.training.pretrain_build import Batches
from tats_ray.training.pretrain_loop import Batch, Halt, PretrainLoop, Stage

_NUM_STEPS = 3
"""Timed, of each phase, after a first one that is not."""
_NUM_VIDEOS = 4


@dataclass(frozen=True)
class StepTiming:
    """Seconds that one learner takes, measured."""

    mae_step_s: float
    """A step of the MAE-only epochs, without waiting for clips."""
    joint_step_s: float
    """A step of the others, the sampler's share of the policy update included."""
    clips_s: float
    """Reading a batch in one process."""
    feature_s: float
    """Reading and encoding one video for the neighbours."""

    def trial_s(self, config: RunConfig, steps_per_epoch: int, num_videos: int) -> float:
        """A whole trial: training and neighbours, without start-up.

        Reading is hidden behind training where there are loader processes, and done once where
        decoded videos are kept.
        """
        loop, workers = config.loop, config.data.num_workers
        alone = min(loop.mae_only_epochs, loop.epochs)
        reading = self.clips_s / max(workers, 1)
        total = 0.0
        for epochs, step_s in ((alone, self.mae_step_s), (loop.epochs - alone, self.joint_step_s)):
            each = max(step_s, reading) if workers else step_s
            total += epochs * steps_per_epoch * each
        if not workers:
            total += reading * steps_per_epoch * (1 if config.data.cache_mb else loop.epochs)
        neighbours = num_videos * self.feature_s / max(workers, 1) if config.data.val_list else 0.0
        return total + neighbours


def time_steps(config: RunConfig, threads: int) -> StepTiming:
    """Measure on the first videos of the training list. Trains nothing that is kept."""
    with torch_threads(threads):
        return _time_steps(config)


def _time_steps(config: RunConfig) -> StepTiming:
    own = ResourceRequest.of(config)
    device, grid = torch.device(own.learners.device), token_grid(config.data, config.model)
    entries = read_lists(config.data).train
    timed = replace(config, data=replace(config.data, reader="local", num_workers=0))
    started = time.perf_counter()
    shown = next(Batches(timed, entries)(0, 0))
    clips_s = time.perf_counter() - started
    mae = build_mae(config.model, grid, seed=config.seed).to(device)
    learner = MAELearner(
        mae,
        config.optim,
        steps_per_epoch=1_000_000,  # at the start of the warm-up, so that weights hardly move
        total_steps=1_000_000_000,
        global_batch=config.optim.batch_size,
        precision=config.loop.precision,
        decode_share=config.model.decode_share,
    )
    beside = config.cluster.policy_place == "learner" or own.policy.gpu
    client = _policy_client(config, grid, device if beside else torch.device("cpu"))
    visible = num_visible(config.sampler, grid)
    env = make_env(config, learner, config.optim.batch_size, visible)
    policy = build_policy(config.sampler, config.model, grid, seed=0)
    if is_learned(policy):
        policy.to(device)
    main = Stage(policy, env, visible)
    mae_step_s, joint_step_s = (
        _step_s(config, learner, main, client, shown, mae_only_epochs=epochs) for epochs in (1, 0)
    )
    encoder = FrozenEncoder(mae.encoder.eval(), grid, timed.data)
    asked = FeatureRequest(source=encoder, entries=entries[:_NUM_VIDEOS], plan=ViewPlan())
    started = time.perf_counter()
    compute(asked, num_workers=0, say=lambda text: None)
    feature_s = (time.perf_counter() - started) / len(asked.entries)
    return StepTiming(mae_step_s, joint_step_s, clips_s=clips_s, feature_s=feature_s)


def _policy_client(
    config: RunConfig, grid: TokenGrid, device: torch.device
) -> LocalPolicyClient | None:
    policy = build_policy(config.sampler, config.model, grid, seed=0)
    if not is_learned(policy):
        return None
    policy.to(device)
    algorithm, precision = config.algorithm.build(policy), config.loop.precision
    return LocalPolicyClient(PolicyLearner(policy, algorithm, seed=0, precision=precision))


def _step_s(
    config: RunConfig,
    learner: MAELearner,
    main: Stage,
    client: LocalPolicyClient | None,
    shown: Batch,
    *,
    mae_only_epochs: int,
) -> float:
    """Seconds that a step on a batch takes, in an epoch with the sampler or without."""
    clock = _Clock(learner.device)
    loop = PretrainLoop(
        LoopConfig(
            epochs=1,
            mae_only_epochs=mae_only_epochs,
            rollout_fraction=config.loop.rollout_fraction,
            warmup_mask=config.loop.warmup_mask,
            precision=config.loop.precision,
        ),
        seed=config.seed,
        slots=[0],
        batches=lambda epoch, first: iter([shown] * (_NUM_STEPS + 2)),
        learner=learner,
        warmup=replace(main, policy=FixedPolicy(learner.mae.grid)),
        main=main,
        client=client,
        hooks=clock,
        masks_per_clip=config.algorithm.masks_per_clip,
    )
    with suppress(Halt):
        loop.run()
    return clock.step_s


class _Clock:
    """Hooks that time steps and end the loop."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []

    def on_step(
        self, loop: PretrainLoop, metrics: Mapping[str, float], batches: Sequence[Batch]
    ) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        self._times.append(time.perf_counter())
        if len(self._times) > _NUM_STEPS:
            raise Halt

    def on_epoch(self, loop: PretrainLoop) -> None:
        pass

    @property
    def step_s(self) -> float:
        return (self._times[-1] - self._times[0]) / _NUM_STEPS
