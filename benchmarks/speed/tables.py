"""Every table of speed and memory: `make bench` runs this.

    python benchmarks/speed/tables.py [--peer ~/adamae] [--peer ~/VideoMAE] [--save]
    python benchmarks/speed/tables.py --only step,operations --rounds 5

On one CPU core: one thread, process CPU time, variants by turns. Every ratio is the median of the
rounds with their range, and there is no verdict where the rounds differ by more than 15 %.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tats_ray.benchmarks import sampler
from tats_ray.benchmarks.machine import machine
from tats_ray.benchmarks.speed.clips import all_loading
from tats_ray.benchmarks.speed.memory import mb_per_clip
from tats_ray.benchmarks.speed.peers import Peer
from tats_ray.benchmarks.speed.rounds import Ratio, table, take_turns
from tats_ray.benchmarks.step import KINDS, PARTS, Kind, StepSetting, TrainingSteps

from tats_ray.config.schema import ModelConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import stream
from tats_ray.core.words import counted
from tats_ray.models.zoo import SIZES

RIVALS: dict[str, Kind] = {"AdaMAE": "learned", "VideoMAE": "random"}
"""Which of our steps does the work of a peer's."""
BARS = {
    "AdaMAE's own / learned": 1.2,
    "VideoMAE's own / random": 1.55,
    "learned / random": 1.85,
    "forward": 2.5,
    "both ways": 2.1,
}
"""Of ratios: at least so much, and for the cost of the sampler at most."""
BLOCK_MB = {"kept": 340, "recomputed": 210}
UPDATE_OPERATIONS = 1000
TOKENS = 1568


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    size: str = "base"
    mask_ratio: float = 0.95
    batch: int = 2
    rounds: int = 3
    peers: tuple[Peer, ...] = ()

    def setting(self, batch: int) -> StepSetting:
        model = ModelConfig(size=self.size, decoder_depth=4)  # type: ignore[arg-type]
        return StepSetting(model=model, mask_ratio=self.mask_ratio, batch=batch)


@dataclass(frozen=True)
class SpeedTable:
    """One table: what it says, as text and as figures."""

    text: str
    figures: dict[str, Any]


def step_table(asked: Request) -> SpeedTable:
    """A training step with the sampler, with random masks, and of the peers."""
    steps = TrainingSteps(asked.setting(asked.batch))
    parts: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}

    def own(kind: Kind) -> Callable[[], float]:
        def ms() -> float:
            parts[kind].append(steps.ms_per_clip(kind))
            return sum(parts[kind][-1].values())

        return ms

    def theirs(peer: Peer) -> Callable[[], float]:
        step = peer.step(size=asked.size, mask_ratio=asked.mask_ratio, batch=asked.batch)

        def ms() -> float:
            begin = time.process_time()
            step()
            return 1e3 * (time.process_time() - begin) / asked.batch

        return ms

    variants = {str(kind): own(kind) for kind in KINDS}
    variants |= {peer.name: theirs(peer) for peer in asked.peers}
    rounds = take_turns(variants, asked.rounds)
    ratios = {f"{p.name}'s own / {RIVALS[p.name]}": (p.name, RIVALS[p.name]) for p in asked.peers}
    ratios |= {"learned / random": ("learned", "random")}
    found = {name: Ratio.of(rounds, *pair) for name, pair in ratios.items()}
    split = {
        kind: {part: round(statistics.median(p[part] for p in seen[1:])) for part in PARTS}
        for kind, seen in parts.items()
    }
    ms = {name: round(statistics.median(one[name] for one in rounds)) for name in variants}
    rows: list[list[object]] = [
        [name, ms[name], *split.get(name, dict.fromkeys(PARTS, "")).values()] for name in variants
    ]
    text = table(["step, ms per clip", "whole", *PARTS], rows)
    rows = [
        [name, ratio, BARS[name], ratio.against(BARS[name], is_cost=name == "learned / random")]
        for name, ratio in found.items()
    ]
    figures = {
        "ms_per_clip": ms,
        "parts_ms_per_clip": split,
        "ratios": {name: ratio.figures() for name, ratio in found.items()},
    }
    return SpeedTable(f"{text}\n\n{table(['ratio', '', 'bar', ''], rows)}", figures)


def sampler_table(asked: Request) -> SpeedTable:
    """One trajectory block on one clip, against its equations as they are written."""
    width = SIZES[asked.size].width
    blocks = {kind: sampler.block(kind, width, width // 64, 8) for kind in sampler.KINDS}
    for one in blocks.values():
        one.load_state_dict(blocks["written"].state_dict())
    x = torch.randn(1, TOKENS, width, generator=stream(0, "benchmark", "block"))
    rows: list[list[object]] = []
    figures: dict[str, Any] = {}
    for name in ("forward", "both ways"):

        def seconds(kind: str, name: str = name) -> float:
            return sampler.seconds(blocks[kind], x, backward=name == "both ways")

        rounds = take_turns({kind: partial(seconds, kind) for kind in blocks}, asked.rounds)
        for kind in ("kept", "recomputed"):
            ratio = Ratio.of(rounds, "written", kind)
            ms = round(1e3 * statistics.median(one[kind] for one in rounds))
            bar = [BARS[name], ratio.against(BARS[name])] if kind == "kept" else ["", ""]
            rows.append([f"{name}, trajectories {kind}", ms, ratio, *bar])
            figures[f"{name}, {kind}"] = {"ms": ms, "times_faster": ratio.figures()}
    return SpeedTable(
        table(["trajectory block", "ms", "written out / ours", "bar", ""], rows), figures
    )


def memory_table(asked: Request) -> SpeedTable:
    """Peak of the block alone, and what one more clip needs in a step; fresh processes."""
    shape = Namespace(tokens=TOKENS, width=SIZES[asked.size].width)
    block = {kind: round(sampler.peak_mb(kind, shape)) for kind in sampler.KINDS}
    rows: list[list[object]] = [
        [f"trajectory block both ways, {kind}", mb, BLOCK_MB.get(kind, "")]
        for kind, mb in block.items()
    ]
    what = {str(kind): str(kind) for kind in KINDS}
    what |= {peer.name: str(peer.folder) for peer in asked.peers}
    step = {
        name: round(mb_per_clip(one, asked.size, asked.mask_ratio, batches=(1, 3)))
        for name, one in what.items()
    }
    rows += [[f"one more clip in a step, {name}", mb, ""] for name, mb in step.items()]
    return SpeedTable(
        table(["memory", "MB", "bar"], rows), {"block_mb": block, "step_mb_per_clip": step}
    )


def operations_table(asked: Request) -> SpeedTable:
    """What a second step dispatches, and what it fetches from its device one by one."""
    steps = TrainingSteps(asked.setting(1))
    found: dict[str, Any] = {}
    for kind in KINDS:
        steps.step(kind, lambda: None)
        counts, fetched = steps.operations(kind)
        found[kind] = {**counts, "fetched": fetched}
    rows = [[kind, *counts.values()] for kind, counts in found.items()]
    text = table(["operations of a step", *PARTS, "numbers fetched"], rows)
    update = found["learned"]["learn"]
    verdict = "reached" if update <= UPDATE_OPERATIONS else "missed"
    return SpeedTable(f"{text}\npolicy update: {update}, bar {UPDATE_OPERATIONS}: {verdict}", found)


def data_table(asked: Request) -> SpeedTable:
    """Clips from videos that are made here; with peers, against their own data set."""
    found = all_loading(asked.peers, asked.rounds)
    names = ["ours", *(peer.name for peer in asked.peers)]
    text = table(
        ["clips/s of one core", *names, "ours, file never seen"],
        [
            [kind, *(one["clips_per_s"][name] for name in names), one["first_sight_clips_per_s"]]
            for kind, one in found.items()
        ],
    )
    kinds = ("times_faster", "times_faster_at_first_sight")
    if asked.peers:
        rows = [
            [f"{kind}, against {peer.name}'s own", *(one[column][peer.name] for column in kinds)]
            for kind, one in found.items()
            for peer in asked.peers
        ]
        text += "\n\n" + table(["ratio", "known files", "files never seen"], rows)
    for one in found.values():
        one |= {n: {peer: r.figures() for peer, r in one[n].items()} for n in kinds}
    return SpeedTable(text, found)


def environment_table(asked: Request) -> SpeedTable:
    """Episodes of the vector environment against a loop over the single one."""
    from tats_ray.benchmarks.env import ENVIRONMENTS, FREE, milliseconds

    cpu, rows, found = torch.device("cpu"), [], {}
    for env_id in ENVIRONMENTS:
        for what, options in (("tiny autoencoder", {"device": "cpu"}), ("alone", FREE)):
            one = milliseconds(env_id, 32, asked.rounds, cpu, **options)
            name = f"{env_id.split('/')[1]}, {what}"
            ratio = Ratio(*one["ratio"])
            rows.append([name, one["vector"], one["loop"], ratio])
            found[name] = one
    return SpeedTable(table(["episode, ms", "vector of 32", "loop", "ratio"], rows), found)


TABLES: dict[str, Callable[[Request], SpeedTable]] = {
    "operations": operations_table,
    "step": step_table,
    "sampler": sampler_table,
    "memory": memory_table,
    "data": data_table,
    "environment": environment_table,
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peer", action="append", default=[], help="checkout of AdaMAE or VideoMAE"
    )
    parser.add_argument("--only", default=",".join(TABLES), help="tables, with commas between them")
    parser.add_argument("--size", default="base")
    parser.add_argument("--mask-ratio", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--save",
        nargs="?",
        const="",
        help="write JSON; default: benchmarks/results/DATE-tables.json",
    )
    args = parser.parse_args(argv)
    names = args.only.split(",")
    for name in names:
        if name not in TABLES:
            raise UsageError(f"--only {name} is no table; there are {', '.join(TABLES)}")
    torch.set_num_threads(1)
    asked = Request(
        args.size, args.mask_ratio, args.batch, args.rounds, tuple(Peer(path) for path in args.peer)
    )
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "device": machine(torch.device("cpu")),
        "cores": os.cpu_count(),
        "size": args.size,
        "mask_ratio": args.mask_ratio,
        "clips": args.batch,
        "precision": "float32",
        "rounds": args.rounds,
        "peers": [peer.name for peer in asked.peers],
        "tables": {},
    }
    print(
        f"{found['device']}, {counted(found['cores'], 'core')}, torch {found['torch']}, ViT-"
        f"{args.size}, ratio {args.mask_ratio}, batch {args.batch}, float32, "
        f"{counted(args.rounds, 'round')}"
    )
    for name in names:
        made = TABLES[name](asked)
        gc.collect()
        load = round(os.getloadavg()[0], 1)
        print(f"\n{name} (load {load})\n{made.text}", flush=True)
        found["tables"][name] = {**made.figures, "load": load}
    if args.save is not None:
        default = Path(__file__).parents[1] / "results" / f"{found['date']}-tables.json"
        path = Path(args.save) if args.save else default
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
