"""The trajectory block against the same mathematics as written: time and memory, as ratios.

    python benchmarks/sampler.py [--tokens 1568] [--width 768] [--rounds 5]
    python benchmarks/sampler.py --device cuda --batch 32 --precision bfloat16

Variants alternate in one process, one thread, process CPU time, on a GPU wall time; medians with
[min-max] of the per-round ratios. Memory is the peak of a forward and backward pass beyond what was
held before: of a fresh process per variant, on a GPU of torch's allocator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from einops import rearrange
from tats_ray.benchmarks.machine import machine
from torch import Tensor, nn

from tats_ray.core.devices import autocast, now
from tats_ray.models.trajectory import TrajectoryAttention, TrajectoryBlock

KINDS = ("kept", "recomputed", "written")
"""Ours with `sampler.recompute` off and on, and the equations as they are written."""


class WrittenAttention(TrajectoryAttention):
    """Trajectory attention as its equations are written: all scores, projected trajectories."""

    def forward(self, x: Tensor) -> Tensor:
        heads, slots = self.num_heads, self.num_slots
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=heads)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        weights = rearrange(scores, "b h n (t s) -> b h n t s", t=slots).softmax(-1)
        pooled = torch.einsum("bhnts,bhtsd->bhntd", weights, v.unflatten(2, (slots, -1)))
        path = rearrange(pooled, "b h n t d -> b n t (h d)")
        token = torch.arange(x.shape[1], device=x.device)
        own = path[:, token, token // (x.shape[1] // slots)]
        q2 = rearrange(self.proj_q(own), "b n (h d) -> b h n d", h=heads)
        k2, v2 = rearrange(self.proj_kv(path), "b n t (two h d) -> two b h n t d", two=2, h=heads)
        mix = (torch.einsum("bhnd,bhntd->bhnt", q2 * q2.shape[-1] ** -0.5, k2)).softmax(-1)
        out = torch.einsum("bhnt,bhntd->bhnd", mix, v2)
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


def block(kind: str, width: int, heads: int, slots: int) -> nn.Module:
    """`written`, or ours that keeps trajectories or recomputes them."""
    made = TrajectoryBlock(width, heads, slots, recompute=kind == "recomputed")
    if kind == "written":
        written = WrittenAttention(width, heads, slots)
        written.load_state_dict(made.attn.state_dict())
        made.attn = written
    return made


def spread(ratios: list[float]) -> list[float]:
    """Median, least and most."""
    return [round(r, 2) for r in (statistics.median(ratios), min(ratios), max(ratios))]


def seconds(module: nn.Module, x: Tensor, *, backward: bool, precision: str = "float32") -> float:
    start = now(x.device)
    with torch.set_grad_enabled(backward), autocast(x.device, precision):  # type: ignore[arg-type]
        out = module(x)
    if backward:
        out.float().sum().backward()
    return now(x.device) - start


def allocated_mb(module: nn.Module, x: Tensor, precision: str) -> float:
    """Growth of the allocator's peak over one forward and backward pass."""
    module.zero_grad(set_to_none=True)
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_allocated(x.device)
    seconds(module, x, backward=True, precision=precision)
    return (torch.cuda.max_memory_allocated(x.device) - before) / 2**20


def peak_mb(kind: str, args: argparse.Namespace) -> float:
    """Growth of the peak memory of a fresh process over one forward and backward pass."""
    command = [sys.executable, __file__, "--peak-of", kind, "--tokens", str(args.tokens)]
    command += ["--width", str(args.width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return float(done.stdout)


def resident_peak_mb() -> float:
    """Largest resident size so far; unlike ru_maxrss, a child does not inherit its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_peak(args: argparse.Namespace) -> None:
    module = block(args.peak_of, args.width, args.width // 64, 8)
    seconds(block(args.peak_of, 64, 1, 8), torch.randn(1, 16, 64), backward=True)  # warm up
    x = torch.randn(1, args.tokens, args.width)
    before = resident_peak_mb()
    seconds(module, x, backward=True)
    print(resident_peak_mb() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1568)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--peak-of", default="")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.peak_of:
        measure_peak(args)
        return
    device = torch.device(args.device)
    x = torch.randn(args.batch, args.tokens, args.width).to(device)
    blocks = {kind: block(kind, args.width, args.width // 64, 8).to(device) for kind in KINDS}
    for one in blocks.values():
        one.load_state_dict(blocks["written"].state_dict())
    with torch.no_grad():
        written = blocks["written"](x[:1])
        difference = (blocks["kept"](x[:1]) - written).abs().max().item()
    figures: dict[str, object] = {
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "device": machine(device),
        "clips": args.batch,
        "precision": args.precision,
        "max_abs_difference": difference,
    }
    for backward in (False, True):
        how = {"backward": backward, "precision": args.precision}
        rounds = [
            {kind: seconds(one, x, **how) for kind, one in blocks.items()}
            for _ in range(args.rounds + 1)
        ][1:]
        figures["forward_backward" if backward else "forward"] = {
            kind: {
                "ms": round(1e3 * statistics.median(r[kind] for r in rounds), 1),
                "times_faster": spread([r["written"] / r[kind] for r in rounds]),
            }
            for kind in KINDS
        }
    if device.type == "cpu":
        figures["peak_mb"] = {kind: round(peak_mb(kind, args)) for kind in KINDS}
    else:
        figures["peak_mb"] = {
            kind: round(allocated_mb(one, x, args.precision)) for kind, one in blocks.items()
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
