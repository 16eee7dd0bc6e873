"""Clips per second of one thread, against the way in which the peers load them.

    python benchmarks/speed/data_readers.py [--clips FOLDER] [--rounds 10]

The peers' way is written here anew: decord opens the whole video, PIL crops and resizes each frame,
and the clip becomes float. Ours is `ClipDataset`: warm (the video was counted before), on first
sight of a file, and from a cache (`tats data cache`). All take turns in one process and one thread,
and process CPU time counts. Prints JSON: milliseconds per clip, and how many times faster ours is,
as median and range over the rounds. With `--clips`, files of UCF101's and Kinetics' kind are real;
others are encoded here, from films or from synthetic scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tats_ray.benchmarks.machine import machine

from tats_ray.core.arrays import Float, UInt8
from tats_ray.data.cache.frame_cache import FrameCache
from tats_ray.data.cache.make_cache import make_cache
from tats_ray.data.cache.shards import CacheSettings
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.decode import read_frames
from tats_ray.data.encode import Codec, write_video
from tats_ray.data.manifest import read_list
from tats_ray.data.synthetic import make_clip

FRAMES, STRIDE, SIDE = 16, 4, 224
_DOG = "derived-from-dog_eating_CC0/dog_xvid_320x240.avi"
_SIGN = "intel-iot-devkit+sample-videos/again.mkv"
_NASA = "meta-pytorch+torchcodec/nasa_13013.mp4"
KINDS = {"UCF101 avi": _DOG, "HMDB51 avi": _SIGN, "Kinetics mp4": _NASA}
"""Files of each kind; what is no avi or mp4 is encoded as one."""


def video_of(kind: str, clips: Path | None, folder: Path) -> Path:
    """A video of a kind: a real one, one made of real frames, or a synthetic one."""
    suffix, source = kind.split()[1], KINDS[kind]
    made = folder / f"{kind.split()[0]}.{suffix}"
    if clips is not None and (clips / source).suffix == made.suffix:
        shutil.copyfile(clips / source, made)
        return made
    if clips is not None:
        frames = read_frames(str(clips / source), lambda total: range(total))
        frames = np.stack([np.asarray(Image.fromarray(f).resize((320, 240))) for f in frames])
    else:
        square, _ = make_clip(120, 240, 0, "benchmark", 0, 0)
        frames = np.pad(square, ((0, 0), (0, 0), (40, 40), (0, 0)), "reflect")
    codec: Codec = "mpeg4" if suffix == "avi" else "h264"
    write_video(made, frames, codec=codec, gop=250, num_b_frames=2)
    return made


def peers(path: str, draw: np.random.Generator) -> Float[torch.Tensor, "C F H W"]:
    """One clip as the peers load it: decord, PIL, float."""
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    start = int(draw.integers(max(len(reader) - FRAMES * STRIDE, 0) + 1))
    wanted = [min(start + STRIDE * i, len(reader) - 1) for i in range(FRAMES)]
    frames = reader.get_batch(wanted).asnumpy()
    height, width = frames.shape[1:3]
    w, h = (int(min(width, height) * draw.choice([1, 0.875, 0.75, 0.66])) for _ in range(2))
    left, top = int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1))
    pictures: list[UInt8[np.ndarray, "H W 3"]] = []
    for frame in frames:
        crop = Image.fromarray(frame).crop((left, top, left + w, top + h))
        pictures.append(np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    clip = torch.from_numpy(np.stack(pictures)).permute(3, 0, 1, 2).float() / 255.0
    mean, std = (
        torch.tensor(part).view(3, 1, 1, 1)
        for part in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    return (clip - mean) / std


def measure(kind: str, clips: Path | None, folder: Path, rounds: int) -> dict[str, Any]:
    """All four ways with one kind of file."""
    folder.mkdir()
    video = video_of(kind, clips, folder)
    sights = []
    for number in range(rounds + 1):  # the first round warms up
        copy = folder / f"sight{number}{video.suffix}"
        shutil.copyfile(video, copy)
        sights.append(copy.name)
    (folder / "new.csv").write_text("\n".join(sights) + "\n")
    (folder / "known.csv").write_text(f"{video.name}\n")
    make_cache(folder / "known.csv", folder / "cache", CacheSettings(256, 90))
    options: dict[str, Any] = {"num_frames": FRAMES, "image_size": SIDE, "stride": STRIDE}
    known = read_list(folder / "known.csv")
    warm = ClipDataset(entries=known, **options)
    first = ClipDataset(entries=read_list(folder / "new.csv"), **options)
    cached = ClipDataset(entries=known, cache=FrameCache(folder / "cache"), **options)
    draw = np.random.default_rng(0)
    ways: dict[str, Callable[[int], object]] = {
        "peers": lambda number: peers(str(video), draw),
        "warm": lambda number: warm[number, 0],
        "first sight": lambda number: first[number, number],
        "cached": lambda number: cached[number, 0],
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, load in ways.items():
            began = time.process_time()
            load(number)
            spent[way].append(1e3 * (time.process_time() - began))
    found: dict[str, Any] = {
        "ms": {way: round(statistics.median(t[1:]), 1) for way, t in spent.items()}
    }
    for way in ("warm", "first sight", "cached"):
        ratios = [a / b for a, b in zip(spent["peers"][1:], spent[way][1:], strict=True)]
        found[way] = [round(r, 2) for r in (statistics.median(ratios), min(ratios), max(ratios))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"load": os.getloadavg()[0], "device": machine(torch.device("cpu"))}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            found[kind] = measure(kind, args.clips, Path(folder, kind.split()[0]), args.rounds)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
