"""Episodes per second of the environments: many clips in one step against one after another.

    python benchmarks/env.py [--batch 32] [--rounds 5] [--device cpu]

Both forms take turns in one process, one thread, process CPU time; with the autoencoder on a GPU,
wall time. Prints JSON: milliseconds per episode of both, and their ratio as median and range over
the rounds, with the tiny autoencoder and with a scorer that costs nothing, which is the environment
alone and stays on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from typing import Any

import gymnasium
import numpy as np
import torch
from tats_ray.benchmarks.machine import machine
from torch import Tensor

from tats_ray.checkpoints.frozen_scorer import TINY_GRID
from tats_ray.core.devices import now


class FreeScorer:
    """Answers at once: a fixed error per token."""

    grid, width, is_frozen = TINY_GRID, 1, True

    def embed(self, clips: Tensor) -> Tensor:
        return torch.zeros(len(clips), TINY_GRID.num_tokens, 1)

    def score(self, clips: Tensor, visible_idx: Tensor) -> Tensor:
        error = torch.ones(len(clips), TINY_GRID.num_tokens)
        return error.scatter_(1, visible_idx, 0.0)

    measure = score


ENVIRONMENTS = ("tats_ray:TATS/TokenSelection-v0", "tats_ray:TATS/SequentialTokenSelection-v0")
FREE: dict[str, Any] = {
    "scorer": FreeScorer(),
    "num_visible": 16,
    "action": "scores",
    "observation": "features",
    "reward": "error_reduction",
    "num_clips": 256,
}
"""The defaults of `gymnasium.make`, but for the scorer."""


def milliseconds(
    env_id: str, batch: int, rounds: int, where: torch.device, **options: Any
) -> dict[str, Any]:
    """Per episode, of `batch` episodes: in one vector environment, and in a loop over one."""
    single = gymnasium.make(env_id, **options)
    vector = gymnasium.make_vec(env_id, num_envs=batch, **options)
    steps = getattr(vector, "num_rounds", None) or 1
    actions = np.random.default_rng(0).uniform(-1, 1, (batch, TINY_GRID.num_tokens))
    actions = actions.astype(np.float32)

    def together() -> None:
        for _ in range(steps):
            vector.step(actions)  # the next episode begins by itself

    def looped() -> None:
        for action in actions:
            single.reset()
            for _ in range(steps):
                single.step(action)

    for number in range(0, 256, batch):  # paint and probe every clip before the clock runs
        vector.reset(options={"clip_idx": np.arange(number, number + batch) % 256})
        together()
    for number in range(256):
        single.reset(options={"clip_idx": number})
        for _ in range(steps):
            single.step(actions[0])
    vector.reset(seed=0)
    single.reset(seed=0)
    pairs = [(_spent(together, where), _spent(looped, where)) for _ in range(rounds)]
    ratios = [loop / vec for vec, loop in pairs]
    return {
        "vector": round(1e3 * statistics.median(vec for vec, _ in pairs) / batch, 3),
        "loop": round(1e3 * statistics.median(loop for _, loop in pairs) / batch, 3),
        "ratio": [round(r, 1) for r in (statistics.median(ratios), min(ratios), max(ratios))],
    }


def _spent(work: Any, where: torch.device) -> float:
    """The shortest of ten: a step of the vector form is over before a busy machine is quiet."""
    times = []
    for _ in range(10):
        start = now(where)
        work()
        times.append(now(where) - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device, cpu = torch.device(args.device), torch.device("cpu")
    size = (args.batch, args.rounds)
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "device": machine(device),
    }
    for env_id in ENVIRONMENTS:
        found[env_id.split("/")[1]] = {
            "tiny autoencoder": milliseconds(env_id, *size, device, device=args.device),
            "environment alone": milliseconds(env_id, *size, cpu, **FREE),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
