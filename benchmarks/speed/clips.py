"""Loading of clips, ours against the peers' own data set, on videos that are made here."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tats_ray.benchmarks.speed.peers import Peer
from tats_ray.benchmarks.speed.rounds import Ratio, take_turns

from tats_ray.core.arrays import UInt8
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.encode import Codec, write_video
from tats_ray.data.manifest import read_list

STRIDE, NUM_VIDEOS = 4, 4
KINDS: dict[str, tuple[str, Codec, tuple[int, int, int], int]] = {
    "as UCF101: 320x240, MPEG-4 avi": ("avi", "mpeg4", (180, 240, 320), 1),
    "as Kinetics: 456x256, H.264 mp4": ("mp4", "h264", (250, 256, 456), 2),
}
"""Ending, codec, frames and size, and the longest run of frames that are stored out of order."""


def textures(shape: tuple[int, int, int], seed: int) -> UInt8[np.ndarray, "F H W 3"]:
    """Frames of a texture that slides, `F H W 3`: as many bytes in a file as a real video has."""
    frames, height, width = shape
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    still = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
    moved = np.stack([np.roll(still, (number, 2 * number), (0, 1)) for number in range(frames)])
    return moved.astype(np.uint8)


def make_lists(folder: Path) -> dict[str, Path]:
    """A list of fresh videos for each kind."""
    lists = {}
    for number, (name, (ending, codec, shape, num_b_frames)) in enumerate(KINDS.items()):
        place = folder / str(number)
        place.mkdir()
        paths = [place / f"{index}.{ending}" for index in range(NUM_VIDEOS)]
        for index, path in enumerate(paths):
            write_video(
                path, textures(shape, index), codec=codec, gop=90, num_b_frames=num_b_frames
            )
        lists[name] = place / "train.csv"
        lists[name].write_text("".join(f"{path} 0\n" for path in paths))
    return lists


def spent(work: Callable[[], object]) -> float:
    """Processor time of all threads and of finished child processes, seconds."""
    start = time.process_time() + sum(os.times()[2:4])
    work()
    return time.process_time() + sum(os.times()[2:4]) - start


def loading(list_file: Path, peers: Sequence[Peer], rounds: int) -> dict[str, Any]:
    """Clips per second of one core, and how much sooner ours is there than each peer's."""

    def all_of(clip: Callable[[int], object]) -> Callable[[], float]:
        return lambda: spent(lambda: [clip(index) for index in range(NUM_VIDEOS)])

    clips = ClipDataset(entries=read_list(list_file), stride=STRIDE)
    first = all_of(lambda index: clips[0, index])() / NUM_VIDEOS
    variants = {"ours": all_of(lambda index: clips[1, index])}
    for peer in peers:
        theirs = peer.clips(list_file, mask_ratio=0.9, stride=STRIDE)
        variants[peer.name] = all_of(theirs.__getitem__)
    taken = take_turns(variants, rounds)
    once = [{**one, "first sight": first * NUM_VIDEOS} for one in taken]
    return {
        "clips_per_s": {
            name: round(NUM_VIDEOS / sorted(one[name] for one in taken)[len(taken) // 2], 2)
            for name in variants
        },
        "first_sight_clips_per_s": round(1 / first, 2),
        "times_faster": {peer.name: Ratio.of(taken, peer.name, "ours") for peer in peers},
        "times_faster_at_first_sight": {
            peer.name: Ratio.of(once, peer.name, "first sight") for peer in peers
        },
    }


def all_loading(peers: Sequence[Peer], rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tats_bench_") as folder:
        lists = make_lists(Path(folder))
        return {name: loading(path, peers, rounds) for name, path in lists.items()}
