"""`tats bench buffer`: hand-over of rollouts and weights as a share of a training step."""

from __future__ import annotations

import os
import statistics

import torch
from tats_ray.benchmarks.handover import bench_cluster, measure_handover

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.schema import DataConfig, ModelConfig, OptimConfig, SamplerConfig
from tats_ray.core.devices import autocast, find_device, now, torch_threads
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import SIZES, build_learned_policy, build_mae, num_visible, token_grid
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner

H100_CLIPS_PER_S = 266
"""Of a ViT-B at mask ratio 0.9 in bfloat16, 32 clips a step; measured by benchmarks/step.py."""
SAMPLER = SamplerConfig(mask_ratio=0.9)


def sized_rollout(grid: TokenGrid, width: int, num_clips: int) -> Rollout:
    """A rollout of noise in half precision, as large as a real one."""
    generator = stream(0, "bench", "rollout")
    shape = (num_clips, grid.num_tokens)
    count = num_visible(SAMPLER, grid)
    bits = torch.randint(0, 2**15, (*shape, width), dtype=torch.int16, generator=generator)
    return Rollout(
        tokens=bits.view(torch.bfloat16),
        visible_idx=torch.rand(shape, generator=generator).topk(count).indices,
        log_prob=torch.zeros(shape),
        value=torch.zeros(num_clips),
        reward=torch.zeros(shape),
        policy_version=0,
        step=0,
        rank=0,
    )


def bench_buffer(
    *,
    size: str = "base",
    batch: int = 32,
    rounds: int = 5,
    step_clips: int = 2,
    device: str = "cpu",
) -> float:
    """Print the parts and the sum, beside the step time here and on an H100.

    Args:
        device: where the rollout begins and the step is taken; a GPU takes the whole batch.

    Returns:
        Share of the step that was measured here; nan without one.
    """
    where = find_device(device)
    model = ModelConfig(size=size)  # type: ignore[arg-type]
    grid = token_grid(DataConfig(), model)
    policy = build_learned_policy(SAMPLER, model, grid, seed=0)
    rollout = sized_rollout(grid, SIZES[size].width, batch).to(where)
    weights = policy.to(where).state_dict()
    weight_bytes = sum(value.nbytes for value in weights.values())
    with bench_cluster(store_mb=max(512, 6 * rollout.num_bytes // 2**20)):
        found = measure_handover(rollout, weights, rounds=rounds)
    print(
        f"{batch} clips, {rollout.num_bytes / batch / 1e6:.2f} MB each: "
        f"rollout {rollout.num_bytes / 1e6:.0f} MB, weights {weight_bytes / 1e6:.0f} MB, "
        f"{rounds} rounds, load {os.getloadavg()[0]:.1f}"
    )
    for name in ("push_s", "take_s", "publish_s", "fetch_s", "total_s"):
        times = [1e3 * getattr(one, name) for one in found]
        print(
            f"{name.removesuffix('_s'):>9}  {statistics.median(times):>7.1f} ms "
            f"[{min(times):.1f}-{max(times):.1f}]"
        )
    total = statistics.median(one.total_s for one in found)
    share = float("nan")
    if step_clips:
        clips = step_clips if where.type == "cpu" else batch
        step = batch / clips * step_seconds(model, grid, policy, clips, where)
        share = total / step
        what = "1 CPU thread" if where.type == "cpu" else torch.cuda.get_device_name(where)
        print(
            f"step here ({what}, bfloat16, {clips} clips scaled to {batch}): "
            f"{step:.3g} s, hand-over {share:.2%}, wanted under 5%"
        )
    if size == "base" and where.type == "cpu":
        step = batch / H100_CLIPS_PER_S
        print(
            f"step of an H100 (measured once): {1e3 * step:.0f} ms, hand-over through this "
            f"machine's memory {total / step:.0%}; use cluster.policy_place learner there"
        )
    return share


@torch_threads(1)
def step_seconds(
    model: ModelConfig, grid: TokenGrid, policy: SamplerPolicy, num_clips: int, device: torch.device
) -> float:
    """Seconds of act, MAE step and policy update after a warm-up: of processor time on one thread,
    on a GPU of wall time.
    """
    learner = MAELearner(
        build_mae(model, grid, seed=0).to(device),
        OptimConfig(warmup_epochs=0),
        steps_per_epoch=1,
        total_steps=10**6,
        global_batch=num_clips,
        precision="bfloat16",
    )
    updates = PolicyLearner(policy, PPOConfig().build(policy), seed=0, precision="bfloat16")
    clips = torch.randint(0, 256, (num_clips, *grid.clip_shape), dtype=torch.uint8)
    count = num_visible(SAMPLER, grid)

    def step(number: int) -> float:
        start = now(device)
        tokens = learner.embed(clips)
        with autocast(learner.device, "bfloat16"):
            drawn = policy.act(tokens, count, generator=stream(0, "bench", number, device=device))
        error = learner.learn(clips, drawn.visible_idx).error
        updates.update(
            [
                Rollout(
                    tokens=tokens,
                    visible_idx=drawn.visible_idx,
                    log_prob=drawn.log_prob,
                    value=drawn.value,
                    reward=error,
                    policy_version=number,
                    step=number,
                    rank=0,
                )
            ]
        )
        return now(device) - start

    times = [step(number) for number in range(3 if device.type == "cpu" else 12)]
    return statistics.median(times[len(times) // 3 :])
