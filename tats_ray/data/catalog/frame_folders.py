"""A video as a folder of numbered pictures, `img_00001.jpg` and on: exact by construction."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import VideoError

_FILM = re.compile(r"\.(mp4|avi|mkv|webm|mov|m4v|mpe?g|ts|wmv|flv|3gp)$", re.IGNORECASE)
_PICTURE = re.compile(r"(.*?)(\d+)\.(?:jpe?g|png|bmp|webp)", re.IGNORECASE)


def is_frame_folder(path: str | Path) -> bool:
    """Whether a path is a folder of numbered pictures, without folders or films among them."""
    try:
        with os.scandir(path) as found:
            files = [(each.name, each.is_dir()) for each in found]
            is_mixed = any(is_dir or _FILM.search(name) for name, is_dir in files)
            return not is_mixed and any(_PICTURE.fullmatch(name) for name, _ in files)
    except (OSError, ValueError):
        return False


def frame_files(folder: str) -> list[str]:
    """Paths of the pictures, first to last. Optical flow (`flow_x_00001.jpg`) is passed over.

    Raises:
        VideoError: when there are none, several series of them, or one that has a gap.
    """
    series: dict[str, dict[int, str]] = defaultdict(dict)
    try:
        names = [path.name for path in Path(folder).iterdir()]
    except OSError as error:
        raise VideoError(folder, f"cannot be opened ({error.strerror})") from error
    for name in names:
        picture = _PICTURE.fullmatch(name)
        if picture is None or name.lower().startswith("flow"):
            continue
        number = int(picture[2])
        if number in series[picture[1]]:
            other = series[picture[1]][number]
            raise VideoError(folder, f"has two pictures of one number, {other} and {name}")
        series[picture[1]][number] = name
    if len(series) != 1:
        found = ", ".join(f"{prefix}*" for prefix in sorted(series)[:3])
        raise VideoError(
            folder,
            f"holds several series of pictures ({found})" if series else "has no numbered pictures",
        )
    (pictures,) = series.values()
    numbers = sorted(pictures)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    for before, after in pairwise(numbers):
        if after - before != step:
            raise VideoError(folder, f"has a gap between {pictures[before]} and {pictures[after]}")
    return [str(Path(folder, pictures[number])) for number in numbers]


def read_picture(folder: str, path: str) -> UInt8[np.ndarray, "H W 3"]:
    """One frame of a folder, RGB.

    Raises:
        VideoError: naming the folder, for a picture that cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = str(error).partition(" '")[0].splitlines()[0]  # Pillow repeats the path
        raise VideoError(folder, f"{Path(path).name} cannot be read ({why})") from error
