"""Train the tiny sampler of `tats select` on videos made here, and write its weights.

    python benchmarks/tiny_sampler.py [--folder PATH] [--out PATH]

Pong as a random player plays it, and shapes that move over textures: nothing is downloaded. One
learner and one thread, so the same command gives the same weights on the same kind of machine.
Prints what was measured on validation videos of each kind.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.checkpoints.format import load
from tats_ray.checkpoints.tiny_sampler import (
    TINY_CONFIG,
    TINY_SAMPLER,
    tiny_sampler,
    write_tiny,
)
from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.config.schema import CheckpointConfig, EvalConfig, LoopConfig, OptimConfig, RunConfig
from tats_ray.data.atari.atari_set import make_atari
from tats_ray.data.manifest import read_list
from tats_ray.data.motion import read_motion
from tats_ray.data.synthetic import synthesize
from tats_ray.evaluation.selecting.select_frames import select_frames
from tats_ray.ops.measures import ranking_auc
from tats_ray.runs.pretrain_run import pretrain

NUM_TRAIN, NUM_VAL = 240, 32
"""Videos of each of the three kinds."""


EPOCHS, TAKEN = 12, 9
"""Of training, and the one after which the sampler is taken; it learns in the second half."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/tiny_sampler"))
    parser.add_argument("--out", type=Path, default=TINY_SAMPLER)
    args = parser.parse_args()
    make_videos(args.folder)
    config = settings(args.folder)
    has_begun = (Path(config.checkpoint.folder) / config.name).is_dir()
    run = pretrain(config, resume=has_begun).folder
    step = TAKEN * (3 * NUM_TRAIN // config.optim.batch_size)
    found = load(run / "checkpoints" / f"step_{step:08d}")
    assert found.policy is not None
    write_tiny(args.out, found.mae["network"], found.policy["network"])
    print(f"{args.out}: {args.out.stat().st_size} bytes")
    for kind in ("pong", "vivid", "clear"):
        print(f"{kind}: AUC against true motion {motion_auc(args.folder / kind):.3f}")


def motion_auc(folder: Path, num_videos: int = 8) -> float:
    """Whether the shipped sampler prefers moving tokens, over whole validation videos."""
    found, aucs = tiny_sampler(), []
    for entry in read_list(folder / "val.csv")[:num_videos]:
        lattice = select_frames(found, entry.path, 1).heat
        motion = read_motion(entry.path)
        assert motion is not None
        aucs.append(ranking_auc(*as_tokens(lattice, motion)))
    return sum(aucs) / len(aucs)


def as_tokens(heat: np.ndarray, motion: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat, and whether a twentieth of the pixels of a token's first frame move, `1 N` each."""
    times, rows, columns = heat.shape
    per_slot = -(-len(motion) // times)
    first = torch.from_numpy(motion[::per_slot].copy()).float()
    share = interpolate(first.unsqueeze(1), size=(rows, columns), mode="area")
    return torch.from_numpy(heat).reshape(1, -1), (share >= 0.05).reshape(1, -1)


def make_videos(folder: Path) -> None:
    """Three kinds, and lists of all of them in turn, so that every validation has each kind."""
    synthetic = partial(synthesize, num_train=NUM_TRAIN, num_val=NUM_VAL)
    kinds = {
        "pong": make_atari(folder / "pong", "pong", num_train=NUM_TRAIN, num_val=NUM_VAL),
        "vivid": synthetic(folder / "vivid", look="vivid"),
        "clear": synthetic(folder / "clear", look="clear"),
    }
    for split in ("train", "val"):
        rows = [
            [
                f"{kind}/{line.split()[0]}\n"
                for line in getattr(made, f"{split}_list").read_text().splitlines()
            ]
            for kind, made in kinds.items()
        ]
        lines = [line for group in zip(*rows, strict=True) for line in group]
        (folder / f"{split}.csv").write_text("".join(lines))


def settings(folder: Path) -> RunConfig:
    """The demo's values, for more videos and smaller crops of them."""
    return replace(
        TINY_CONFIG,
        data=replace(
            TINY_CONFIG.data,
            train_list=str(folder / "train.csv"),
            val_list=str(folder / "val.csv"),
            num_workers=0,
            cache_mb=4000,
        ),
        algorithm=PPOConfig(
            lr=2e-3,
            policy_coef=1.0,
            value_coef=0.5,
            entropy_coef=0.01,
            advantage="relative",
            sharpness=4,
        ),
        loop=LoopConfig(epochs=EPOCHS, mae_only_epochs=EPOCHS // 2, rollout_fraction=0.5),
        optim=OptimConfig(batch_size=16, base_lr=1.6e-2, warmup_epochs=1, clip_grad=1.0),
        eval=EvalConfig(every_epochs=2, num_clips=3 * NUM_VAL, moving_share=0.05),
        checkpoint=CheckpointConfig(folder=str(folder / "runs"), every_epochs=1, keep_last=20),
        cluster=ClusterConfig(threads=1, policy_place="learner"),
    )


if __name__ == "__main__":
    main()
