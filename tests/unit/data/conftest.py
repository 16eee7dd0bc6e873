"""Videos whose frames carry their own number, so that a wrong frame cannot go unnoticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tats_ray.data.encode import write_video
from tats_ray.data.manifest import VideoEntry

SIDE = 64
_WEIGHT = 2 ** np.arange(8).reshape(2, 4)


def numbered_frames(num_frames: int, offset: int = 0) -> np.ndarray:
    """Frames of 64 x 64: eight 16 x 16 squares on top spell the number, below a pattern moves."""
    bits = ((np.arange(num_frames) + offset)[:, None, None] & _WEIGHT) > 0
    top = np.kron(bits, np.ones((1, 16, 16), bool)) * 255.0
    time, y, x = np.ogrid[:num_frames, : SIDE // 2, :SIDE]
    bottom = 128 + 80 * np.sin(x / 7 + time / 2) * np.cos(y / 5 + time / 3)
    gray = np.concatenate([top, bottom], axis=1).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def write_pictures(folder: Path, num_frames: int, pattern: str = "img_{:05d}.jpg") -> Path:
    """The frames as pictures, counted from 1."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(numbered_frames(num_frames), start=1):
        Image.fromarray(frame).save(folder / pattern.format(number))
    return folder


def read_numbers(frames: np.ndarray) -> list[int]:
    """The number that each of (F H W C) frames spells; any size."""
    half, quarter = frames.shape[1] // 4, frames.shape[2] // 4
    top = frames[:, : 2 * half, : 4 * quarter].mean(axis=-1)
    blocks = top.reshape(len(frames), 2, half, 4, quarter).mean(axis=(2, 4))
    return [int(number) for number in ((blocks > 127) * _WEIGHT).sum(axis=(1, 2))]


@pytest.fixture(scope="session")
def numbered_videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoEntry]:
    """Six videos of 40 frames, H.264 with B-frames and MPEG-4 in turns, labels 0 to 5."""
    folder = tmp_path_factory.mktemp("numbered")
    entries = []
    for label in range(6):
        path = folder / f"v{label}.{'avi' if label % 2 else 'mp4'}"
        codec = "mpeg4" if label % 2 else "h264"
        write_video(path, numbered_frames(40, offset=40 * label), 25, codec, num_b_frames=2)
        entries.append(VideoEntry(str(path), label))
    return entries
