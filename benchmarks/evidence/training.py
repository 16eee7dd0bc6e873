"""One row's training, in this process: what `tats pretrain` does, without Ray.

`tests/runtime/test_recipe.py` holds the loop to the run on Ray, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import dump_config
from tats_ray.config.schema import RunConfig, SamplerConfig
from tats_ray.core.devices import torch_threads
from tats_ray.data.clip_lists import read_lists
from tats_ray.evaluation.mask_evaluator import evaluator
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import build_mae, build_policy, num_visible, token_grid
from tats_ray.training.environments import make_env
from tats_ray.training.mae_learner import MAELearner, optimizer_steps
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyLearner
from tats_ray.training.pretrain_build import Batches
from tats_ray.training.pretrain_loop import Batch, PretrainLoop, Stage


class _Watched:
    """Hooks that show how far a training is."""

    def on_step(
        self, loop: PretrainLoop, metrics: Mapping[str, float], batches: Sequence[Batch]
    ) -> None: ...

    def on_epoch(self, loop: PretrainLoop) -> None:
        if loop.at.epoch % 4 == 0:
            print(f"{'trained':>14}  {loop.at.epoch}/{loop.config.epochs} epochs", flush=True)


@torch_threads(1)
def train(config: RunConfig, folder: Path, *, is_trained: bool = True) -> dict[str, float]:
    """Train, leave a checkpoint in `folder`, and measure the masks of the validation clips.

    Args:
        is_trained: False leaves the first weights, the baseline of all rows.

    Returns:
        `eval/` measures of the last weights, steps, and CPU seconds of the training alone.
    """
    grid, lists = token_grid(config.data, config.model), read_lists(config.data)
    batches = Batches(config, lists.train)
    learner = MAELearner(
        build_mae(config.model, grid, seed=config.seed),
        config.optim,
        steps_per_epoch=batches.steps_per_epoch,
        total_steps=optimizer_steps(config.loop, batches.steps_per_epoch),
        global_batch=config.optim.batch_size,
        precision=config.loop.precision,
    )

    def stage(sampler: SamplerConfig) -> Stage:
        count = num_visible(sampler, grid)
        policy = build_policy(sampler, config.model, grid, seed=config.seed)
        return Stage(policy, make_env(config, learner, config.optim.batch_size, count), count)

    client = _client(config)
    main = stage(config.sampler)
    if client is not None and is_learned(main.policy):
        main.policy.load_state_dict(dict(client.current()))
    loop = PretrainLoop(
        config.loop,
        seed=config.seed,
        slots=[0],
        batches=batches,
        learner=learner,
        warmup=stage(replace(config.sampler, name="random", options={})),
        main=main,
        client=client,
        hooks=_Watched(),
        masks_per_clip=config.algorithm.masks_per_clip,
    )
    started = time.process_time()
    if is_trained:
        loop.run()
        loop.drain()
    cpu_s = time.process_time() - started
    state = checkpoints.Checkpoint(
        position=loop.at,
        mae=learner.state_dict(),
        policy=client.state_dict() if client else None,
        config_yaml=dump_config(config),
    )
    checkpoints.save(folder, state, keep_last=1)
    measures = evaluator(config, lists.val)
    assert measures is not None
    found = measures.measure(learner.mae, loop.main.policy)
    return {**found, "steps": float(loop.at.step), "cpu_s": cpu_s}


def _client(config: RunConfig) -> LocalPolicyClient | None:
    grid = token_grid(config.data, config.model)
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    if not is_learned(policy):
        return None
    owner = PolicyLearner(policy, config.algorithm.build(policy), seed=config.seed)
    return LocalPolicyClient(owner, max_staleness=config.loop.max_staleness)
