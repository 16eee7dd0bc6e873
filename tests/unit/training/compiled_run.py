"""A small run that torch compiles, in a process of its own; the second call goes on from the first.

    python -m tests.unit.training.compiled_run MODE FOLDER

The first call saves after the first of two epochs, the second one begins there. Prints, as JSON,
the notes, the losses, and a digest of all weights in the end.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.checkpoints.format import load, save
from tats_ray.config.schema import LoopConfig
from tats_ray.training.compilation import Compiler
from tests.conftest import SmallRun


def main(mode: Any, folder: Path) -> None:
    torch.set_num_threads(1)
    notes: list[str] = []
    loop = LoopConfig(epochs=2, mae_only_epochs=0)
    run = SmallRun(loop=loop, algorithm=PPOConfig(lr=1e-2, policy_coef=1.0))
    Compiler(mode, "the autoencoder", notes.append).mae(run.learner.mae)
    Compiler(mode, "the policy", notes.append).policy(run.policy_learner.policy)
    if folder.is_dir():
        run.restore(load(folder))
    else:
        run.on_epoch = lambda loop: save(  # type: ignore[method-assign]
            folder if loop.at.epoch == 1 else folder / "end", run.checkpoint(), keep_last=1
        )
    run.loop.run()
    digest = hashlib.sha256()
    for value in run.weights().values():
        digest.update(value.numpy().tobytes())
    losses = [metrics["mae/loss"] for metrics in run.metrics]
    print(json.dumps({"notes": notes, "losses": losses, "digest": digest.hexdigest()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
