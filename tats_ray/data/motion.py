"""True motion: which pixels belong to a moving object, stored beside the video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from einops import reduce

from tats_ray.core.arrays import Bool, Float
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid


def motion_path(video: Path | str) -> Path:
    """Where the motion of `video` is stored: `a/b.mp4` -> `a/b.motion.npz`."""
    return Path(video).with_suffix(".motion.npz")


def write_motion(video: Path | str, motion: Bool[np.ndarray, "F H W"]) -> None:
    """Stores the motion of `video` beside it, one bit a pixel, compressed."""
    shape = np.array(motion.shape, np.int64)
    np.savez_compressed(motion_path(video), bits=np.packbits(motion), shape=shape)


def read_motion(video: Path | str) -> Bool[np.ndarray, "F H W"] | None:
    """The stored motion of every frame of `video`, or None where none was stored.

    Raises:
        UsageError: for a file that is not a motion file.
    """
    path = motion_path(video)
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            shape = tuple(int(side) for side in stored["shape"])
            bits = np.unpackbits(stored["bits"], count=int(np.prod(shape)))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{path} is not a motion file ({error}); make the videos again") from error
    return bits.reshape(shape).astype(bool)


def token_motion(motion: Bool[np.ndarray, "F H W"], grid: TokenGrid) -> Float[np.ndarray, " N"]:
    """The share of moving pixels in each token of a clip, 0 to 1, in the order of `grid`.

    Raises:
        UsageError: when the clip is not of the grid's size.
    """
    if motion.shape != grid.clip_shape[1:]:
        raise UsageError(f"motion of shape {motion.shape} does not fit clips {grid.clip_shape[1:]}")
    share: np.ndarray = reduce(
        motion.astype(np.float32),
        "(t f) (h y) (w x) -> (t h w)",
        "mean",
        f=grid.tubelet,
        y=grid.patch,
        x=grid.patch,
    )
    return share
