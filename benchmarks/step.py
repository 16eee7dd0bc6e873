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
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import Any, Literal

import torch
from tats_ray.benchmarks.machine import machine
from tats_ray.benchmarks.operations import Operations

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.schema import DataConfig, ModelConfig, OptimConfig, SamplerConfig
from tats_ray.core.devices import Precision, autocast, now
from tats_ray.core.late import LateChecks
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.models.kernel_choice import use_faster_form
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.zoo import build_learned_policy, build_mae, num_visible, token_grid
from tats_ray.training.mae_learner import MAELearner

Kind = Literal["learned", "random"]
KINDS: tuple[Kind, ...] = ("learned", "random")
COMPILATION = "tats_ray.training.compilation"
"""What compiles networks, in versions that have `loop.compile`."""
PARTS = ("act", "reconstruct", "learn")
"""Of a step: embed and draw, train the autoencoder, update the policy."""


@dataclass(frozen=True, kw_only=True)
class StepSetting:
    """What is timed."""

    model: ModelConfig = field(default_factory=lambda: ModelConfig(decoder_depth=4))
    data: DataConfig = field(default_factory=DataConfig)
    mask_ratio: float = 0.95
    batch: int = 2
    precision: Precision = "float32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    recompute: Literal["on", "off"] = "off"
    reuse: bool = True
    """Learn from the graph of the draw."""
    compile: str = "off"
    """As `loop.compile`."""


class TrainingSteps:
    """Both learners of a run, and steps of them on one batch of noise."""

    def __init__(self, setting: StepSetting) -> None:
        self.setting = setting
        device, model = setting.device, setting.model
        sampler = SamplerConfig(mask_ratio=setting.mask_ratio, recompute=setting.recompute)
        grid = token_grid(setting.data, model)
        self.num_visible, self.num_tokens = num_visible(sampler, grid), grid.num_tokens
        self.notes: list[str] = []
        """Which form of the second stage was faster, and what the compiler said."""
        mae = build_mae(model, grid, seed=0).to(device)
        self.policy = build_learned_policy(sampler, model, grid, seed=0).to(device)
        use_faster_form(
            self.policy, setting.batch, self.num_tokens, setting.precision, self.notes.append
        )
        if setting.compile != "off":
            self._compiler("the autoencoder").mae(mae)
            self._compiler("the policy").policy(self.policy)
        self.learner = MAELearner(
            mae,
            OptimConfig(warmup_epochs=0),
            steps_per_epoch=1,
            total_steps=10**6,
            global_batch=setting.batch,
            precision=setting.precision,
        )
        self.random = FixedPolicy(grid)
        self.algorithm = PPOConfig().build(self.policy)
        self._generator = stream(0, "benchmark")
        self._draws = stream(0, "benchmark", device=device)
        pixels = (setting.batch, *grid.clip_shape)
        noise = torch.randint(0, 256, pixels, dtype=torch.uint8, generator=self._generator)
        self._clips = noise.to(device)

    def _compiler(self, what: str) -> Any:
        setting, graphs = self.setting, self.setting.device.type == "cuda"
        return import_module(COMPILATION).Compiler(
            setting.compile, what, self.notes.append, graphs=graphs
        )

    def step(self, kind: Kind, border: Callable[[], Any]) -> list[Any]:
        """One step. `border` is called before its first part and after each; what it gave."""
        with LateChecks().gather(None):  # as in a run, where they are looked at with a record
            return self._step(kind, border)

    def _step(self, kind: Kind, border: Callable[[], Any]) -> list[Any]:
        setting, learner, drawn = self.setting, self.learner, None
        seen = [border()]
        tokens = learner.embed(self._clips)
        with autocast(learner.device, learner.precision):
            if kind == "learned" and setting.reuse:
                drawn = self.policy.evaluate(tokens)
                chosen = self.policy.draw(drawn, self.num_visible, generator=self._draws)
            else:
                drawer: Any = self.policy if kind == "learned" else self.random
                chosen = drawer.act(tokens, self.num_visible, generator=self._draws)
        seen.append(border())
        error = learner.learn(self._clips, chosen.visible_idx).error
        seen.append(border())
        if kind == "learned":
            rollout = Rollout(
                tokens=tokens,
                visible_idx=chosen.visible_idx,
                log_prob=chosen.log_prob,
                value=chosen.value,
                reward=error,
                policy_version=0,
                step=0,
                rank=0,
                drawn=drawn,
            )
            with autocast(learner.device, learner.precision):
                self.algorithm.update([rollout], generator=self._generator)
        seen.append(border())
        return seen

    def ms_per_clip(self, kind: Kind) -> dict[str, float]:
        """Of each part; on a CPU processor time, on a GPU wall time."""
        times = self.step(kind, lambda: now(self.setting.device))
        spent = [1e3 * (b - a) / self.setting.batch for a, b in pairwise(times)]
        return dict(zip(PARTS, spent, strict=True))

    def operations(self, kind: Kind) -> tuple[dict[str, int], int]:
        """Operations that each part of a step dispatches, and numbers that it fetches."""
        with Operations() as counted:
            counts = self.step(kind, lambda: counted.count)
        each = [b - a for a, b in pairwise(counts)]
        return dict(zip(PARTS, each, strict=True)), counted.fetched


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
    steps = TrainingSteps(
        StepSetting(
            model=ModelConfig(size=args.size, decoder_depth=4),
            mask_ratio=args.mask_ratio,
            batch=args.batch,
            precision=args.precision,
            device=device,
            recompute=args.recompute,
            reuse=args.reuse,
        )
    )
    for kind in (*KINDS, *KINDS):
        steps.ms_per_clip(kind)  # warm up
    rounds = [{kind: steps.ms_per_clip(kind) for kind in KINDS} for _ in range(args.rounds)]
    operations, _ = steps.operations("learned")
    overhead = [sum(r["learned"].values()) / sum(r["random"].values()) for r in rounds]
    totals = {n: statistics.median(sum(r[n].values()) for r in rounds) for n in KINDS}
    alone = statistics.median(r["learned"]["reconstruct"] for r in rounds)
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
                "sampler_share": round(1 - alone / totals["learned"], 3),
                "operations_of_update": operations["learn"],
                "peak_gpu_mb": round(peak / 2**20),
                "ms_per_clip": {
                    name: {
                        part: round(statistics.median(r[name][part] for r in rounds), 3)
                        for part in PARTS
                    }
                    for name in KINDS
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
