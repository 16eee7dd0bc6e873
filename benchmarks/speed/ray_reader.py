"""Clips that Ray actors decode against those of loader processes, on one machine.

    python benchmarks/speed/ray_reader.py [--workers 1] [--rounds 10]

Makes videos of UCF101's kind, and reads an epoch of them with `data.reader: local` and with `ray`
in turns, with as many processes each. Nothing but reading is done, so what an actor's answers cost
on their way counts in full. Prints JSON: clips/s of either, and the share of the local reader's
speed that `ray` reaches, median and range over the rounds, of wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tats_ray.benchmarks.machine import machine
from tats_ray.benchmarks.speed.clips import textures
from tats_ray.benchmarks.speed.rounds import Ratio, take_turns

from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.dataset import ClipBatch
from tats_ray.data.encode import write_video
from tats_ray.runtime.driver.ray_cluster import joined_cluster
from tats_ray.runtime.driver.side_actors import start_peers
from tats_ray.runtime.resources.placement import place
from tats_ray.runtime.workers.ray_reader import RayReader
from tats_ray.training.pretrain_build import Batches

NUM_VIDEOS, BATCH, ENTRIES = 8, 8, 96


def make_config(folder: Path, num_workers: int) -> RunConfig:
    """A run whose list has every video several times."""
    for index in range(NUM_VIDEOS):
        frames = textures((180, 240, 320), index)
        write_video(folder / f"{index}.avi", frames, codec="mpeg4", gop=90)
    lines = (f"{index % NUM_VIDEOS}.avi\n" for index in range(ENTRIES))
    (folder / "train.csv").write_text("".join(lines))
    return parse_config(
        {
            "data": {"train_list": str(folder / "train.csv"), "num_workers": num_workers},
            "sampler": {"name": "random"},
            "optim": {"batch_size": BATCH},
            "cluster": {"cpus_per_worker": 0},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        local = make_config(Path(folder), args.workers)
        by_ray = replace(local, data=replace(local.data, reader="ray"))
        entries = read_lists(local.data).train
        with joined_cluster(by_ray):
            peers = start_peers(by_ray, place(by_ray))
            reader = partial(
                RayReader,
                decoders=peers.decoders,
                timeout_s=local.cluster.timeout_s,
                pins=False,
                name=str,
            )
            ways = {
                "local": Batches(local, entries),
                "ray": Batches(by_ray, entries, source=lambda sampler: reader(sampler)),
            }
            taken = take_turns({way: spent(batches) for way, batches in ways.items()}, args.rounds)
    found = {
        "load": os.getloadavg()[0],
        "device": machine(torch.device("cpu")),
        "workers": args.workers,
        "clips_per_s": {
            way: round(ENTRIES / statistics.median(one[way] for one in taken), 1) for way in ways
        },
        "ray_of_local": Ratio.of(taken, "local", "ray").figures(),
    }
    print(json.dumps(found, indent=1))


def spent(batches: Callable[[int, int], Iterator[ClipBatch]]) -> Callable[[], float]:
    """Reads an epoch, a new one every time; wall time in seconds."""
    epochs = iter(range(1_000_000))

    def read() -> float:
        began = time.perf_counter()
        for batch in batches(next(epochs), 0):
            assert len(batch.pixels) == BATCH
        return time.perf_counter() - began

    return read


if __name__ == "__main__":
    main()
