"""Train the tiny autoencoder of the environments on synthetic clips, and write its weights.

    python benchmarks/tiny_mae.py [--steps 4000] [--out PATH]

No cluster, no videos. The same command gives the same weights on the same kind of machine. Prints
the error on the environments' own clips, which it was not trained on, and the AUC of a token's mean
error against true motion.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from tats_ray.checkpoints.format import write_tensors
from tats_ray.checkpoints.frozen_scorer import TINY_GRID, TINY_WEIGHTS, tiny_mae
from tats_ray.core.seeds import stream
from tats_ray.data.clips import SyntheticClips
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.ops.measures import ranking_auc
from tats_ray.ops.optim import adamw
from tats_ray.ops.schedules import warmup_cosine

BATCH, LR, WARMUP = 32, 3e-3, 100
FEWEST, MOST = 4, 48  # visible tokens: the sequential task begins with few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=TINY_WEIGHTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mae = tiny_mae()
    train = SyntheticClips(TINY_GRID, args.clips, split="train")
    clips = torch.stack([train[index].pixels for index in range(len(train))])
    optimizer = adamw(mae, lr=LR, betas=(0.9, 0.95), weight_decay=0.05)
    generator, began = stream(0, "tiny"), time.perf_counter()
    for step in range(args.steps):
        rows = torch.randint(len(clips), (BATCH,), generator=generator)
        spread = float(torch.rand((), generator=generator))
        num_visible = round(FEWEST * (MOST / FEWEST) ** spread)
        visible_idx = random_masks(BATCH, num_visible, generator)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(
                step, base=LR, minimum=1e-5, warmup_steps=WARMUP, total_steps=args.steps
            )
        loss = mae(clips[rows], visible_idx).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            seconds = time.perf_counter() - began
            print(f"step {step + 1}: {seconds:.0f} s, {report(mae)}", flush=True)
    weights = {name: value.half() for name, value in mae.state_dict().items()}
    write_tensors(args.out, weights)


def random_masks(count: int, num_visible: int, generator: torch.Generator) -> Tensor:
    noise = torch.rand(count, TINY_GRID.num_tokens, generator=generator)
    return noise.argsort(1)[:, :num_visible]


@torch.no_grad()
def report(mae: MaskedAutoencoder, num_visible: int = 14, num_masks: int = 16) -> str:
    """Mean error under random masks at ratio 0.9, and how well it tells what moves."""
    source = SyntheticClips(TINY_GRID, 256)
    known = [source[index] for index in range(len(source))]
    clips = torch.stack([clip.pixels for clip in known])
    motion = torch.stack([clip.motion for clip in known if clip.motion is not None])
    moving = motion >= 0.1
    total, times = torch.zeros(moving.shape), torch.zeros(moving.shape)
    generator = stream(0, "tiny", "report")
    for _ in range(num_masks):
        error = mae(clips, random_masks(len(clips), num_visible, generator)).error
        total += error
        times += error > 0
    mean = total / times.clamp(min=1)
    error = float(total.sum() / times.sum())
    auc = ranking_auc(mean, moving)
    ratio = float(mean[moving].mean() / mean[~moving].mean())
    return f"error {error:.3f}, moving/still {ratio:.2f}, AUC {auc:.2f}"


if __name__ == "__main__":
    main()
