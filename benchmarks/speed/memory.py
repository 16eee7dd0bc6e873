"""What one more clip needs in memory: the growth of a step's peak from one batch to the next.

    python benchmarks/speed/memory.py tats --batch 2
    python benchmarks/speed/memory.py ~/adamae --batch 2

Prints the resident peak of the second step in MB: of a run with the sampler or with random masks,
or of a peer's checkout. Each figure needs a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tats_ray.benchmarks.speed.peers import Peer
from tats_ray.benchmarks.step import KINDS, StepSetting, TrainingSteps

from tats_ray.config.schema import ModelConfig


def resident_peak_mb(step: Callable[[], Any]) -> float:
    """The most that this process has resident while it takes a step; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    step()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def mb_per_clip(what: str, size: str, mask_ratio: float, *, batches: tuple[int, int]) -> float:
    """The peak's growth with each clip, from one batch size to the other."""
    few, many = (
        float(
            subprocess.run(
                [sys.executable, "-m", "tats_ray.benchmarks.speed.memory", what, "--size", size,
                 "--mask-ratio", str(mask_ratio), "--batch", str(batch)],
                capture_output=True, text=True, check=True, timeout=900,
            ).stdout
        )
        for batch in batches
    )  # fmt: skip
    return (many - few) / (batches[1] - batches[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", help="tats, random, or the folder of a peer")
    parser.add_argument("--size", default="base")
    parser.add_argument("--mask-ratio", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what in KINDS:
        model = ModelConfig(size=args.size, decoder_depth=4)
        setting = StepSetting(model=model, mask_ratio=args.mask_ratio, batch=args.batch)
        steps, kind = TrainingSteps(setting), args.what

        def step() -> object:
            return steps.step(kind, lambda: None)
    else:
        step = Peer(args.what).step(size=args.size, mask_ratio=args.mask_ratio, batch=args.batch)
    step()
    print(resident_peak_mb(step))


if __name__ == "__main__":
    main()
