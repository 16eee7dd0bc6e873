"""One training step with a learned sampler against one with random masks.

    python benchmarks/step.py [--size small] [--mask-ratio 0.95] [--batch 2] [--rounds 3]
    python benchmarks/step.py --device cuda --size base --batch 32 --precision bfloat16 --rounds 20

Both alternate in one process, one thread, process CPU time, on a GPU wall time. Prints what a step
spends on acting, reconstructing and learning, the share that is not reconstructing, clips per
second, and the overhead of the sampler with its range over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from tats_ray.benchmarks.machine import machine
from tats_ray.benchmarks.operations import Operations

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.schema import DataConfig, ModelConfig, OptimConfig, SamplerConfig
from tats_ray.core.devices import autocast, now
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.zoo import build_learned_policy, build_mae, num_visible, token_grid
from tats_ray.training.mae_learner import MAELearner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small")
    parser.add_argument("--mask-ratio", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recompute", default="off", choices=["on", "off"])
    parser.add_argument(
        "--no-reuse", dest="reuse", action="store_false", help="evaluate again for the update"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    model = ModelConfig(size=args.size, decoder_depth=4)
    sampler = SamplerConfig(mask_ratio=args.mask_ratio, recompute=args.recompute)
    grid = token_grid(DataConfig(), model)
    count = num_visible(sampler, grid)
    learner = MAELearner(
        build_mae(model, grid, seed=0).to(device),
        OptimConfig(warmup_epochs=0),
        steps_per_epoch=1,
        total_steps=10**6,
        global_batch=args.batch,
        precision=args.precision,
    )
    policy = build_learned_policy(sampler, model, grid, seed=0)
    policy.to(device)
    algorithm = PPOConfig().build(policy)
    generator, draws = stream(0, "benchmark"), stream(0, "benchmark", device=device)
    shape = (args.batch, *grid.clip_shape)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)

    update = Operations()

    def step(drawer: Any, *, counts: bool = False) -> dict[str, float]:
        times, drawn = [now(device)], None
        tokens = learner.embed(clips)
        with autocast(learner.device, learner.precision):
            if drawer is policy and args.reuse:
                drawn = policy.evaluate(tokens)
                selection = policy.draw(drawn, count, generator=draws)
            else:
                selection = drawer.act(tokens, count, generator=draws)
        times.append(now(device))
        error = learner.learn(clips, selection.visible_idx).error
        times.append(now(device))
        if drawer is policy:
            rollout = Rollout(
                tokens=tokens,
                visible_idx=selection.visible_idx,
                log_prob=selection.log_prob,
                value=selection.value,
                reward=error,
                policy_version=0,
                step=0,
                rank=0,
                drawn=drawn,
            )
            counted: Any = update if counts else nullcontext()
            with autocast(learner.device, learner.precision), counted:
                algorithm.update([rollout], generator=generator)
        times.append(now(device))
        spent = [1e3 * (b - a) / args.batch for a, b in pairwise(times)]
        return dict(zip(("act", "reconstruct", "learn"), spent, strict=True))

    drawers = {"tats": policy, "random": FixedPolicy(grid)}
    for drawer in (*drawers.values(), *drawers.values()):
        step(drawer)  # warm up
    rounds = [{name: step(drawer) for name, drawer in drawers.items()} for _ in range(args.rounds)]
    step(policy, counts=True)
    overhead = [sum(r["tats"].values()) / sum(r["random"].values()) for r in rounds]
    totals = {n: statistics.median(sum(r[n].values()) for r in rounds) for n in drawers}
    alone = statistics.median(r["tats"]["reconstruct"] for r in rounds)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "load": os.getloadavg()[0],
                "device": machine(device),
                "size": args.size,
                "clips": args.batch,
                "mask_ratio": args.mask_ratio,
                "precision": args.precision,
                "recompute": args.recompute,
                "acting_graph_reused": args.reuse,
                "step_ms": {name: round(ms * args.batch, 2) for name, ms in totals.items()},
                "clips_per_s": {name: round(1e3 / ms, 1) for name, ms in totals.items()},
                "sampler_share": round(1 - alone / totals["tats"], 3),
                "operations_of_update": update.count,
                "peak_gpu_mb": round(peak / 2**20),
                "ms_per_clip": {
                    name: {
                        part: round(statistics.median(r[name][part] for r in rounds), 3)
                        for part in rounds[0][name]
                    }
                    for name in drawers
                },
                "tats_over_random": [
                    round(r, 2) for r in (statistics.median(overhead), min(overhead), max(overhead))
                ],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
