"""All that is to be measured on a GPU, in one run of a few minutes.

    PYTHONPATH=. python benchmarks/gpu.py [--minutes 6.5] [--out FILE]
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --tiny      # the same path, in seconds

ViT-B at batch 32 and 128, mask ratio 0.95 and 0.9, with the sampler learning and with random masks:
clips per second, share of peak, where the time of a step goes, memory per clip, both forms of the
second stage of trajectory attention, and the ten kernels that take longest. All uncompiled and, in
versions that have it, with `loop.compile`. Needs torch, timm and einops only. The file is written
anew after every measurement, the most wanted ones come first, and none is begun after the time is
up.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tats_ray.benchmarks.machine import machine
from tats_ray.benchmarks.step import COMPILATION, KINDS, PARTS, Kind, StepSetting, TrainingSteps
from torch.utils.flop_counter import FlopCounterMode

from tats_ray.config.schema import DataConfig, ModelConfig
from tats_ray.core.devices import find_device
from tats_ray.models.kernel_choice import form_ms
from tats_ray.models.trajectory import TrajectoryAttention

NOMINAL_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}
"""Of dense products in bfloat16, as the maker gives them (SXM forms)."""
WARM_UP, LONGEST = 3, 10


class Border:
    """A moment on a device's own clock, which the host need not wait for."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        self._time = time.perf_counter()
        if self._event is not None:
            self._event.record()

    def ms_to(self, later: Border) -> float:
        if self._event is None:
            return 1e3 * (later._time - self._time)
        assert later._event is not None
        return self._event.elapsed_time(later._event)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(steps: TrainingSteps, kind: Kind, rounds: int) -> dict[str, Any]:
    """A few steps as a run takes them, the host ahead of the device; what each part takes there."""
    device, batch = steps.setting.device, steps.setting.batch
    for _ in range(WARM_UP):
        steps.step(kind, lambda: None)
    wait(device)
    started = time.perf_counter()
    seen = [steps.step(kind, lambda: Border(device)) for _ in range(rounds)]
    issued = time.perf_counter()
    wait(device)
    ended = time.perf_counter()
    each = [[a.ms_to(b) for a, b in pairwise(borders)] for borders in seen]
    whole = sorted(sum(parts) for parts in each)
    return {
        "clips_per_s": round(rounds * batch / (ended - started), 1),
        "step_ms": round(1e3 * (ended - started) / rounds, 2),
        "step_ms_range": [round(whole[0], 2), round(whole[-1], 2)],
        "host_ms": round(1e3 * (issued - started) / rounds, 2),
        "part_ms": {
            part: round(statistics.median(times), 2)
            for part, times in zip(PARTS, zip(*each, strict=True), strict=True)
        },
    }


def peak_mb(steps: TrainingSteps, kind: Kind) -> float | None:
    """The most that torch has held during a step; None on a CPU, which does not say."""
    device = steps.setting.device
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    steps.step(kind, lambda: None)
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)


def tera_operations(steps: TrainingSteps, kind: Kind) -> float:
    """Floating-point operations of a step, 10^12: products and attention, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        steps.step(kind, lambda: None)
    return counter.get_total_flops() / 1e12


def longest_kernels(steps: TrainingSteps, kind: Kind) -> list[dict[str, Any]]:
    """The ten kernels that take most of a step, with their share of all kernels' time."""
    device = steps.setting.device
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as profile:
        steps.step(kind, lambda: None)
        wait(device)
    spent = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    found = sorted(profile.key_averages(), key=lambda one: getattr(one, spent), reverse=True)
    total = sum(getattr(one, spent) for one in found)
    return [
        {
            "kernel": one.key[:120],
            "ms": round(getattr(one, spent) / 1e3, 3),
            "calls": one.count,
            "share": round(getattr(one, spent) / total, 3),
        }
        for one in found[:LONGEST]
    ]


def second_stage(steps: TrainingSteps) -> dict[str, Any]:
    """Trajectory attention both ways with each form of its second stage, or why there is one."""
    setting = steps.setting
    block = next(m for m in steps.policy.modules() if isinstance(m, TrajectoryAttention))
    try:
        fused, plain = form_ms(block, setting.batch, steps.num_tokens, setting.precision)
    except Exception as error:  # a compiler may fail in any way
        return {"kernel": f"cannot be used here: {type(error).__name__}: {error}"}
    return {"kernel_ms": round(fused, 3), "torch_ms": round(plain, 3)}


def product_tflops(device: torch.device, size: int) -> float:
    """What a large bfloat16 matrix product reaches here: the best of ten."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(12):
        begin = Border(device)
        left @ right
        end = Border(device)
        wait(device)
        times.append(begin.ms_to(end))
    return 2 * size**3 / min(times[2:]) / 1e9


def settings(device: torch.device, modes: Sequence[str], *, is_tiny: bool) -> Iterator[StepSetting]:
    """What is measured, the most wanted first."""
    model, data, (few, many) = ModelConfig(decoder_depth=4), DataConfig(), (32, 128)
    if is_tiny:
        model, (few, many) = ModelConfig(size="tiny", patch=8, decoder_depth=1), (2, 4)
        data = DataConfig(num_frames=4, image_size=32)
    firsts = [(few, 0.95, mode) for mode in modes]
    eager = [(many, 0.95, "off"), (few, 0.9, "off"), (many, 0.9, "off")]
    others = [(n, r, mode) for mode in reversed(modes) for n, r, _ in eager]
    for batch, ratio, mode in dict.fromkeys([*firsts, *eager, *others]):
        if mode in modes:
            yield StepSetting(
                model=model, data=data, mask_ratio=ratio, batch=batch, precision="bfloat16",
                device=device, compile=mode,
            )  # fmt: skip


class Campaign:
    """All measurements of one run."""

    def __init__(self, rounds: int, peaks: Mapping[str, float]) -> None:
        self.rounds, self.peaks = rounds, peaks
        self.found: list[dict[str, Any]] = []
        self._work: dict[tuple[int, float, Kind], float] = {}
        """Operations of a step, counted where nothing is compiled."""

    def measure(self, setting: StepSetting) -> dict[str, Any]:
        """All figures of one setting."""
        one: dict[str, Any] = {
            "batch": setting.batch,
            "mask_ratio": setting.mask_ratio,
            "precision": setting.precision,
            "compile": setting.compile,
        }
        steps = TrainingSteps(setting)
        for kind in KINDS:
            one[kind] = timed(steps, kind, self.rounds) | {"peak_mb": peak_mb(steps, kind)}
            place = (setting.batch, setting.mask_ratio, kind)
            if setting.compile == "off":  # what is compiled cannot be counted
                self._work[place] = tera_operations(steps, kind)
                one[kind]["operations"], one[kind]["numbers_fetched"] = steps.operations(kind)
            if place in self._work:
                rate = self._work[place] / one[kind]["step_ms"] * 1e3
                one[kind]["tera_operations"] = self._work[place]
                one[kind]["share_of_peak"] = {n: round(rate / p, 4) for n, p in self.peaks.items()}
        one["tats_over_random"] = round(one["learned"]["step_ms"] / one["random"]["step_ms"], 3)
        one["second_stage"] = second_stage(steps)
        one["longest_kernels"] = longest_kernels(steps, "learned")
        one["notes"] = steps.notes
        self.found.append(one)
        return one


def memory_per_clip(found: list[dict[str, Any]]) -> dict[str, float]:
    """MB that one more clip takes, by mask ratio, where two batch sizes were measured."""
    per_clip = {}
    for ratio in sorted({one["mask_ratio"] for one in found}):
        same = [one for one in found if (one["mask_ratio"], one["compile"]) == (ratio, "off")]
        for kind in KINDS if len(same) == 2 and same[0]["learned"]["peak_mb"] else ():
            (a, b) = ((one["batch"], one[kind]["peak_mb"]) for one in same)
            per_clip[f"{kind} {ratio}"] = round((b[1] - a[1]) / (b[0] - a[0]), 1)
    return per_clip


def in_words(one: dict[str, Any]) -> str:
    each = []
    for kind in KINDS:
        share = one[kind].get("share_of_peak", {}).get("measured")
        of_peak = "" if share is None else f" ({share:.0%} of peak)"
        each.append(f"{kind} {one[kind]['clips_per_s']:,.0f} clips/s{of_peak}")
    where = f"batch {one['batch']}, ratio {one['mask_ratio']}, compile {one['compile']}"
    return "\n  ".join([f"{where}: {', '.join(each)}", *one["notes"]])


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=6.5)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="a small network and small batches")
    modes = ["off", "blocks", "step"] if find_spec(COMPILATION) else ["off"]
    parser.add_argument("--compile", default=",".join(modes), help="with commas between them")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-DEVICE.json")
    args = parser.parse_args(argv)
    began = time.monotonic()
    device = find_device(args.device)
    torch.set_num_threads(1)
    measured = product_tflops(device, 256 if args.tiny else 8192)
    peaks, name = {"measured": measured}, machine(device)
    for chip, tflops in NOMINAL_TFLOPS.items():
        if chip in name:
            peaks["nominal"] = tflops
    campaign = Campaign(args.rounds, peaks)
    figures: dict[str, Any] = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": name,
        "size": "tiny" if args.tiny else "base",
        "peak_tflops": {name: round(peak, 3) for name, peak in peaks.items()},
        "left_out": [],
        "settings": campaign.found,
    }
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    out = args.out or Path(__file__).parent / "results" / f"{figures['date']}-{slug}.json"

    def write() -> None:
        figures["seconds"] = round(time.monotonic() - began, 1)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")

    print(f"{name}, torch {torch.__version__}, products at {measured:.4g} TFLOP/s")
    for setting in settings(device, args.compile.split(","), is_tiny=args.tiny):
        if time.monotonic() - began > 60 * args.minutes:
            figures["left_out"].append([setting.batch, setting.mask_ratio, setting.compile])
            continue
        print(in_words(campaign.measure(setting)), flush=True)
        gc.collect()
        if setting.compile != "off":
            torch._dynamo.reset()
        figures["memory_mb_per_clip"] = memory_per_clip(campaign.found)
        write()
    if figures["left_out"]:
        print(f"no time was left for (batch, mask ratio, compile): {figures['left_out']}")
    print(f"written to {out}, {figures['seconds']:.0f} s")
    return out


if __name__ == "__main__":
    main()
