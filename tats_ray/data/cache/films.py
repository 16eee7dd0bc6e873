"""Videos encoded anew as films that are small and have many key frames: one mp4 for each."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import VideoError
from tats_ray.core.storage import sync_file
from tats_ray.data.cache.shards import FilmSettings, StoredVideo
from tats_ray.data.decode import probe
from tats_ray.data.encode import encoding

FRAMES_A_SIGN = 100
"""A long video gives a sign of life so often."""
_USUAL_FPS, _MOST_FPS = 25, 240

Frames = Iterator[UInt8[np.ndarray, "h w 3"]]


def film_path(out: Path, name: str) -> Path:
    """Where the film of a video lies, by the video's path beneath the root of its list.

    The whole name stays, for `a.avi` and `a.mkv` are two videos.
    """
    return out / f"{name}.mp4"


def move_in(draft: Path, path: Path) -> None:
    """Give a file that is whole its name."""
    sync_file(draft)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(path)
    sync_file(path.parent)


def store_film(
    path: str, frames: Frames, video: StoredVideo, draft: Path, film: Path, settings: FilmSettings
) -> Generator[dict[str, Any], None, StoredVideo]:
    """Encode a video up to its end, or to where it breaks off, with a sign of life now and then.

    Args:
        path: the video.
        frames: its frames, of the film's size.
        video: what is known of it.
        draft: file to write until the film is whole.

    Returns:
        What is in the film; there is none for a video without a readable frame.

    Raises:
        OSError: when the storage refuses, or takes only a part.
    """
    reasons: list[str] = []

    def readable() -> Frames:
        try:
            yield from frames
        except VideoError as error:
            reasons.append(error.reason)

    try:
        info = probe(path)
    except VideoError as error:
        return replace(video, reason=error.reason)
    video = replace(video, claimed=info.num_frames, width=info.width, height=info.height)
    stored, shown = 0, readable()
    first = next(shown, None)
    if first is not None:
        for stored in _encoded(first, shown, draft, info.fps, settings):
            if stored % FRAMES_A_SIGN == 0:
                yield {}
        _check_whole(draft, stored)
        num_bytes = draft.stat().st_size
        move_in(draft, film)
        video = replace(video, stored=stored, num_bytes=num_bytes)
    return replace(video, reason=reasons[0] if reasons else "")


def try_film(frames: Frames, settings: FilmSettings) -> tuple[int, int]:
    """How many frames there are, and the bytes that they take."""
    first = next(frames, None)
    if first is None:
        return 0, 0
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, "try.mp4")
        *_, stored = _encoded(first, frames, draft, 0.0, settings)
        return stored, draft.stat().st_size


def _encoded(
    first: UInt8[np.ndarray, "h w 3"], rest: Frames, draft: Path, fps: float, settings: FilmSettings
) -> Iterator[int]:
    def frames() -> Frames:
        yield first
        yield from rest

    is_usual = 1 <= fps <= _MOST_FPS
    rate = Fraction(fps).limit_denominator(1001) if is_usual else _USUAL_FPS
    return encoding(draft, frames(), rate, gop=settings.gop, crf=settings.crf)


def _check_whole(film: Path, stored: int) -> None:
    """Muxers notice a full disk late, or not at all.

    Raises:
        OSError: where frames are missing.
    """
    try:
        found = probe(str(film)).num_frames
    except VideoError:
        found = 0
    if found != stored:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
