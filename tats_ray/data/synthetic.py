"""Moving shapes with known motion: a data set that needs no download.

A clip shows one or two textured sprites over a textured background, and its class is the kind of
motion. The scene is a torus, as in an arcade game: what leaves on the left comes back on the
right. So in every frame every position is equally likely, whatever the class, and no single frame
gives the class away. Textures are smooth over two or more patches and nowhere flat: finer ones
cannot be learnt in minutes, and a flat patch, once normalised, is noise [method section 17].

Motion means movement relative to the scene: a sprite moves, a background that pans (15 % of the
clips) and a patch that flickers in brightness only (25 %) do not. The true motion of each pixel is
stored beside each video.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.core.arrays import Bool, Float, UInt8
from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import derive
from tats_ray.core.storage import make_once
from tats_ray.core.words import counted
from tats_ray.data.encode import write_video
from tats_ray.data.motion import write_motion
from tats_ray.data.scene import Look, Scene, draw_scene

CLASSES = (
    "left",
    "right",
    "up",
    "down",
    "clockwise",
    "counter_clockwise",
    "horizontal_swing",
    "vertical_swing",
)
_SPEC_FILE = "synthetic.json"
_FORMAT = 1  # raised whenever the same spec would give other files


@dataclass(frozen=True, slots=True)
class SyntheticSet:
    """Where a synthetic data set lies: two lists, and what its class ids mean."""

    train_list: Path
    val_list: Path
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Spec:
    """All that the files depend on."""

    num_train: int
    num_val: int
    num_frames: int
    size: int
    seed: int
    look: Look = "vivid"
    format: int = _FORMAT

    def described(self) -> dict[str, Any]:
        """What is written beside the files; the first look goes without saying."""
        return {
            name: value
            for name, value in asdict(self).items()
            if (name, value) != ("look", "vivid")
        }


def synthesize(
    out: Path | str,
    *,
    num_train: int = 200,
    num_val: int = 48,
    num_frames: int = 32,
    size: int = 96,
    seed: int = 0,
    look: Look = "vivid",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticSet:
    """Makes the data set in `out`, or returns at once where the same one already lies.

    Half of the videos are H.264 in mp4, half MPEG-4 in avi. The folder appears complete or not at
    all. The files are a function of the arguments and of the encoder's version.

    Args:
        out: a folder that is new, empty, or holds this very data set.
        num_train, num_val: videos in each list; classes are balanced.
        num_frames: frames in a video, shown at 25 a second.
        size: height and width in pixels, even; sprites, speeds and textures scale with it.
        look: colours and contrast, see `data.scene.Look`.
        workers: threads; they do not change the files.
        progress: called with (videos done, videos in all).

    Raises:
        UsageError: for sizes that cannot be, or a folder with something else in it.
    """
    spec = _Spec(num_train, num_val, num_frames, size, seed, look)
    _check(spec, workers)
    out = Path(out)
    make_once(
        out,
        spec.described(),
        lambda folder: _write_all(folder, spec, workers, progress),
        spec_file=_SPEC_FILE,
        what="synthetic set",
    )
    return SyntheticSet(out / "train.csv", out / "val.csv", CLASSES)


def _check(spec: _Spec, workers: int) -> None:
    counts = min(spec.num_train, spec.num_val, spec.num_frames, workers)
    if counts < 1 or spec.size < 16 or spec.size % 2:
        raise UsageError(
            f"cannot make {spec.num_train} + {counted(spec.num_val, 'video')} of {spec.num_frames} "
            f"frames, {spec.size} px, with {counted(workers, 'worker')}; all must be at least 1, "
            "and the size even and at least 16"
        )


def _write_all(
    folder: Path, spec: _Spec, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    jobs = [("train", index) for index in range(spec.num_train)]
    jobs += [("val", index) for index in range(spec.num_val)]
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split in lines:
        (folder / split).mkdir(parents=True)
    # Threads, not processes: numpy and the encoders let go of the interpreter lock, and a new
    # process would spend longer on importing torch than on its videos.
    with ThreadPoolExecutor(workers) as pool:
        written = pool.map(lambda job: _write_video(folder, spec, *job), jobs)
        for done, ((split, _), line) in enumerate(zip(jobs, written, strict=True), start=1):
            lines[split].append(line)
            if progress is not None:
                progress(done, len(jobs))
    for split, rows in lines.items():
        (folder / f"{split}.csv").write_text("".join(rows))
    (folder / "classes.json").write_text(json.dumps(CLASSES, indent=1) + "\n")


def _write_video(folder: Path, spec: _Spec, split: str, index: int) -> str:
    """Writes one video and its motion; returns its line of the list."""
    label = index % len(CLASSES)
    # The container alternates within each class, so that it says nothing about the class.
    is_avi = (index + index // len(CLASSES)) % 2 == 1
    frames, motion = make_clip(
        spec.num_frames, spec.size, spec.seed, split, index, label, spec.look
    )
    name = f"{split}/{index:06d}.{'avi' if is_avi else 'mp4'}"
    write_video(folder / name, frames, 25, "mpeg4" if is_avi else "h264")
    write_motion(folder / name, motion)
    return f"{name}\t{label}\n"


def make_clip(
    num_frames: int, size: int, seed: int, split: str, index: int, label: int, look: Look = "vivid"
) -> tuple[UInt8[np.ndarray, "F H W 3"], Bool[np.ndarray, "F H W"]]:
    """One clip and the motion of its pixels, before the encoder; see the module for what is shown.

    Args:
        num_frames, size: frames, and pixels along a side.
        seed, split, index: name the random stream of the clip.
        label: class id, an index into `CLASSES`; it changes the path and nothing else.
        look: colours and contrast.
    """
    rng = np.random.default_rng(derive(seed, "synthetic", split, index))
    path = _path(label, num_frames, size / 96, rng)
    scene = Scene.random(rng, num_frames=num_frames, size=size, look=look)
    return draw_scene(scene, path, rng)


def _path(
    label: int, num_frames: int, scale: float, rng: np.random.Generator
) -> Float[np.ndarray, "F 2"]:
    """The (x, y) displacement of a sprite from a random place, pixels; y points down."""
    # All is drawn whatever the class, so that the appearance that is drawn next does not know it.
    speed = rng.uniform(1.5, 2.4) * scale  # pixels per frame, twice that per frame at stride 2
    radius = rng.uniform(10.0, 15.0) * scale
    reach = rng.uniform(8.0, 12.0) * scale
    phase = rng.uniform(0.0, 2.0 * np.pi)
    time = np.arange(num_frames)
    angle = phase + speed / radius * time
    swing = reach * np.sin(phase + 2.0 * np.pi * speed / (4.0 * reach) * time)
    line, still = speed * time, np.zeros(num_frames)
    x, y = {
        "left": (-line, still),
        "right": (line, still),
        "up": (still, -line),
        "down": (still, line),
        "clockwise": (radius * np.cos(angle), radius * np.sin(angle)),
        "counter_clockwise": (radius * np.cos(angle), -radius * np.sin(angle)),
        "horizontal_swing": (swing, still),
        "vertical_swing": (still, swing),
    }[CLASSES[label]]
    return np.stack([x, y], axis=1)
