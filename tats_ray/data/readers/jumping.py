"""decord and torchcodec: they jump to a frame, which is fast in long videos and exact in some.

In which files they are exact is found out by comparison, file by file [readers/comparison.py].
decord2 is a build of decord for machines that decord has no wheel for, imported by the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from typing import Any, Literal, NamedTuple

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.words import counted

Choose = Callable[[int], Sequence[int]]
Jumping = Literal["decord", "torchcodec"]
JUMPING: tuple[Jumping, ...] = ("decord", "torchcodec")

_PACKAGES: dict[Jumping, tuple[str, ...]] = {
    "decord": ("decord", "decord2", "eva-decord"),
    "torchcodec": ("torchcodec",),
}
_WAYS_OUT: dict[Jumping, str] = {
    "decord": "pip install decord, or decord2 where it has no wheel, or use data.decoder pyav",
    "torchcodec": "pip install torchcodec, or use data.decoder pyav",
}


class _Opened(NamedTuple):
    num_frames: int
    read: Callable[[list[int]], UInt8[np.ndarray, "F H W 3"]]


@cache
def label_of(reader: Jumping) -> str:
    """Name and version of a library, such as "decord 0.6.0"; empty where it is not installed."""
    for package in _PACKAGES[reader]:
        try:
            return f"{reader} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def named(label: str) -> Jumping | None:
    """The reader of a label, where this machine has the very version; others prove nothing."""
    return next((reader for reader in JUMPING if label and label == label_of(reader)), None)


@cache
def why_missing(reader: Jumping) -> str:
    """Why a reader cannot be used on this machine, and the way out; empty where it can."""
    try:
        _library(reader)
    except ImportError:
        return f"{reader} is not installed; {_WAYS_OUT[reader]}"
    except (OSError, RuntimeError):  # torchcodec brings no FFmpeg
        return (
            f"{reader} finds no FFmpeg; install one of the versions 4 to 8, such as with `apt "
            "install ffmpeg`, or use data.decoder pyav"
        )
    return ""


def installed() -> tuple[Jumping, ...]:
    """Those that this machine can use."""
    return tuple(reader for reader in JUMPING if not why_missing(reader))


def read_jumping(
    path: str, choose: Choose, reader: Jumping, *, expected: int | None = None
) -> UInt8[np.ndarray, "F H W 3"]:
    """The chosen frames, upright RGB, 0-255, whichever frames the library takes them for.

    Args:
        path: the video file.
        choose: from the number of frames to the indices wanted, in any order, repeats allowed.
        reader: which library.
        expected: how many frames the file holds; None for as many as the library counts.

    Raises:
        VideoError: for a file that the library cannot read, or in which it counts other frames.
        UsageError: where the library is not installed.
    """
    if missing := why_missing(reader):
        raise UsageError(missing)
    # What they raise over odd files has no type in common.
    try:
        opened = _open_decord(path) if reader == "decord" else _open_torchcodec(path)
    except Exception as error:
        raise VideoError(path, f"{reader} cannot open it ({one_line(error)})") from error
    total = opened.num_frames
    if total < 1 or expected not in (None, total):
        raise VideoError(
            path, f"{reader} counts {counted(total, 'frame')} where {expected} are shown"
        )
    chosen = checked(choose(total), total)
    try:
        return opened.read(chosen)
    except Exception as error:
        raise VideoError(path, f"{reader} cannot decode it ({one_line(error)})") from error


def checked(chosen: Sequence[int], num_frames: int) -> list[int]:
    """The indices as plain ints; a choice outside the video is a mistake of the caller."""
    indices = [int(index) for index in chosen]
    if not indices or min(indices) < 0 or max(indices) >= num_frames:
        raise ValueError(f"chose frames {indices} of a video with {num_frames}")
    return indices


def one_line(error: Exception) -> str:
    """The first line of what an error says."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(text).splitlines()[0]


def _library(reader: Jumping) -> Any:
    """The library, loaded.

    Raises:
        ImportError: where it is not installed.
        RuntimeError: where the libraries that it needs are not; so does OSError.
    """
    if reader == "decord":
        import decord

        return decord
    import torchcodec.decoders

    try:
        torchcodec.decoders.VideoDecoder(b"no video")
    except RuntimeError as error:
        if "libtorchcodec" in str(error):
            raise
    except ValueError:
        pass
    return torchcodec.decoders


def _open_decord(path: str) -> _Opened:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    return _Opened(len(reader), lambda chosen: reader.get_batch(chosen).asnumpy())


def _open_torchcodec(path: str) -> _Opened:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1)
    return _Opened(len(decoder), lambda chosen: decoder.get_frames_at(chosen).data.numpy())
