"""Damaged and malformed files of every kind that is read: our errors, in time, and nothing else.

Each case is a sound file with a few random mistakes. A seed decides them, so that a case can be
found again. Videos are read in processes of their own: a decoder may crash or spin.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.weight_files import read_weights
from tats_ray.cluster.cluster_lint import cluster_lint
from tats_ray.config.load import finetune_config, load_config
from tats_ray.config.sweep_schema import load_sweep
from tats_ray.core.errors import TatsError
from tats_ray.data.manifest import read_list
from tats_ray.data.synthetic import synthesize
from tests.official import filled, save, videomae
from tests.random_checkpoints import ARGS, own_run

REPO = Path(__file__).parents[2]
SLOWEST_S = 30.0
LONGEST = 10_000
"""Letters of a message; the path of a file may have 4,096."""
SHARES = {"list": 600, "yaml": 700, "checkpoint": 400, "video": 300}
"""2,000 cases; a slice of each runs in the ordinary suite."""
SLICE = {"list": 40, "yaml": 40, "checkpoint": 20}
ODD_WORDS = [
    *("", "\t", "\0", ":", "- ", "? ", "{", "[", "]}", "'", '"', "&a [*a]", "*a", "<<: 1", "---\n"),
    *("!!python/object/apply:os.system [ls]", "!!binary x", "!!int x", "%YAML 9\n", "# ", "| \n"),
    *("2000-13-45", "1e999", ".nan", "-.inf", "0x", "0b2", "1:99:99", "~: 1", "1: 2", "null"),
    *("9" * 5000, "-1", "x" * 300, "[" * 2000, "a " * 3000, "\u202e", "\U0001f600", "NaN", "/"),
]
READ_VIDEOS = """
import sys
from tats_ray.core.errors import TatsError
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.manifest import VideoEntry

for path in sys.argv[1:]:
    print("begin", path, flush=True)
    try:
        clips = ClipDataset(entries=[VideoEntry(path, 0)], num_frames=4, image_size=16, stride=1)
        clips[0, 0]
        print("fine", path, flush=True)
    except TatsError:
        print("refused", path, flush=True)
"""


def damaged(sound: bytes, rng: random.Random, *, is_text: bool) -> bytes:
    """A copy with one to three mistakes: cut, flipped, repeated, shuffled or foreign parts."""
    data = bytearray(sound)
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(len(data) + 1), rng.randint(1, 40)
        kind = rng.randrange(6 if is_text else 4)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at : at + size] = rng.randbytes(size)
        elif kind == 2 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 3:
            data[at:at] = data[rng.randrange(len(data) + 1) :][:size]
        elif kind == 4:
            data[at:at] = rng.choice(ODD_WORDS).encode()
        else:
            lines = data.split(b"\n")
            line = rng.randrange(len(lines))
            key, colon, _ = lines[line].partition(b":")
            lines[line] = key + colon + b" " + rng.choice(ODD_WORDS).encode()
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def check(read: Callable[[], Any], case: str) -> None:
    began, said = time.monotonic(), ""
    try:
        read()
    except TatsError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
    assert len(said) < LONGEST, f"{case}: a message of {len(said):,} letters"
    assert time.monotonic() - began < SLOWEST_S, case


def lists(folder: Path) -> Iterator[tuple[Path, Callable[[Path], Any]]]:
    for name in ("a.mp4", "b c.avi", "d.mp4"):
        (folder / name).touch()
    for text in (
        "a.mp4\t0\nb c.avi\t1\nd\t2\n",
        'path,label\n"b c.avi",1\na.mp4,0\n',
        "a.mp4\nd\n",
    ):
        file = folder / f"{len(text)}.csv"
        file.write_text(text)
        yield file, read_list


def yamls(folder: Path) -> Iterator[tuple[Path, Callable[[Path], Any]]]:
    readers = {"finetune": finetune_config, "sweep": load_sweep, "demo": load_sweep}
    for file in sorted((REPO / "tune_configs").glob("*.yaml")):
        (folder / file.name).write_bytes(file.read_bytes())  # bases of sweeps lie beside them
        yield file, readers.get(file.name.split("_")[0], load_config)
    for file in [REPO / "cluster.yaml", *sorted((REPO / "cluster").rglob("*.yaml"))]:
        yield file, cluster_lint


def weights(folder: Path) -> Iterator[tuple[Path, Callable[[Path], Any]]]:
    state = dict(list(filled(videomae()).items())[:4])
    save_file(state, folder / "sound.safetensors")
    yield folder / "sound.safetensors", read_weights
    yield save(folder / "sound.pth", state, args=ARGS), read_weights
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    yield folder / "old.pt", read_weights


def run_checkpoint(folder: Path) -> tuple[Path, list[str]]:
    """A checkpoint of a run, without checksums, so that the readers meet what is damaged."""
    found = checkpoints.find(own_run(folder / "run"))
    state = json.loads((found / "state.json").read_text())
    state = {name: value for name, value in state.items() if name not in ("files", "sha256")}
    (found / "state.json").write_text(json.dumps(state))
    return found, sorted(file.name for file in found.iterdir())


def fuzz_files(
    cases: list[tuple[Path, Callable[[Path], Any]]], count: int, folder: Path, *, is_text: bool
) -> None:
    for number in range(count):
        rng = random.Random(f"{cases[0][0].name} {number}")
        source, read = rng.choice(cases)
        target = folder / f"case{source.suffix}"
        target.write_bytes(damaged(source.read_bytes(), rng, is_text=is_text))
        check(lambda: read(target), f"case {number} of {source.name}")  # noqa: B023


def fuzz_run(folder: Path, count: int) -> None:
    found, names = run_checkpoint(folder)
    for number in range(count):
        rng = random.Random(f"run {number}")
        file = found / rng.choice(names)
        sound = file.read_bytes()
        file.write_bytes(damaged(sound, rng, is_text=file.suffix in (".json", ".yaml")))
        try:
            check(lambda: checkpoints.load(found), f"case {number} of {file.name}")
        finally:
            file.write_bytes(sound)


def fuzz(kind: str, count: int, folder: Path) -> None:
    if kind == "list":
        fuzz_files([*lists(folder)], count, folder, is_text=True)
    elif kind == "yaml":
        fuzz_files([*yamls(folder)], count, folder, is_text=True)
    else:
        fuzz_files([*weights(folder)], count // 2, folder, is_text=False)
        fuzz_run(folder, count - count // 2)


@pytest.mark.parametrize("kind", SLICE)
def test_slice_of_the_damaged_files(kind: str, tmp_path: Path) -> None:
    fuzz(kind, SLICE[kind], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", SLICE)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    fuzz(kind, SHARES[kind], tmp_path)


def sound_videos(folder: Path) -> list[Path]:
    made = synthesize(folder / "made", num_train=2, num_val=2, num_frames=8, size=32, workers=1)
    assert made.train_list.is_file()
    return sorted(p for p in (folder / "made").rglob("*") if p.suffix in (".mp4", ".avi"))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_damaged_videos(tmp_path: Path) -> None:
    sources, left = sound_videos(tmp_path), []
    for number in range(SHARES["video"]):
        rng = random.Random(f"video {number}")
        source = rng.choice(sources)
        data = source.read_bytes()
        if number % 20 == 0:
            data = rng.choice([b"", b"text", rng.randbytes(2000), b"\x00" * 500])
        target = tmp_path / f"{number}{source.suffix}"
        target.write_bytes(damaged(data, rng, is_text=False))
        left.append(target)
    while left:
        said = read_in_a_process(left[:50])
        begun = said.count("begin ")
        ended = said.count("fine ") + said.count("refused ")
        assert begun == ended == len(left[:50]), f"stopped at {left[begun - 1]}:\n{said[-2000:]}"
        del left[:50]


def read_in_a_process(paths: list[Path]) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", READ_VIDEOS, *paths],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60 + SLOWEST_S * len(paths),
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace")
    return done.stdout.decode(errors="replace")
