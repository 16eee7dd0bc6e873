"""Writes small videos; with decode.py, the only place that touches a video library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import UsageError

Codec = Literal["h264", "mpeg4", "lossless"]

# One thread each: the encoders split work by thread, and the bytes would depend on the machine. And
# x264's macroblock tree gives other bytes for the same frames once in fifty times, on one machine.
_EXACT = {"x264-params": "mbtree=0"}
_OPTIONS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"crf": "14", "preset": "veryfast", "threads": "1", **_EXACT}),
    "lossless": (
        "libx264rgb",
        "rgb24",
        {"qp": "0", "preset": "veryfast", "threads": "1", **_EXACT},
    ),
    "mpeg4": ("mpeg4", "yuv420p", {"qmin": "2", "qmax": "3", "b": "4000000", "threads": "1"}),
}


def write_video(
    path: Path | str,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: int | Fraction = 25,
    codec: Codec = "h264",
    *,
    gop: int = 12,
    num_b_frames: int = 0,
) -> None:
    """Encodes RGB frames; `encoding` in one call."""
    for _ in encoding(path, frames, fps, codec, gop=gop, num_b_frames=num_b_frames):
        pass


def encoding(
    path: Path | str,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: int | Fraction = 25,
    codec: Codec = "h264",
    *,
    gop: int = 12,
    num_b_frames: int = 0,
    crf: int | None = None,
) -> Iterator[int]:
    """Encodes RGB frames, and tells after each how many are done.

    The container follows from the name, the bytes from the arguments.

    Args:
        path: where to write; `.mp4`, `.mkv`, `.mov` or `.avi`.
        frames: RGB, 0-255, taken one by one; height and width even, for chroma is stored at half
            size.
        fps: frames a second.
        codec: H.264, MPEG-4 part 2, the codec of UCF101 and HMDB51 (quantiser 2-3), or
            H.264 in RGB that gives every pixel back as it was.
        gop: frames from one key frame to the next.
        num_b_frames: at most so many consecutive frames are stored out of order.
        crf: of H.264, 0 to 51, lower is better; None for 14.

    Raises:
        UsageError: when the frames are none, or odd in height or width.
        OSError: when the storage refuses.
    """
    import av

    frames = iter(frames)
    first = next(frames, None)
    height, width = (0, 0) if first is None else first.shape[:2]
    if first is None or height % 2 or width % 2:
        what = "no frames" if first is None else f"frames of {width}x{height}"
        raise UsageError(
            f"{path}: cannot encode {what}; give at least one frame, of even width and height"
        )
    name, pixels, options = _OPTIONS[codec]
    options = {**options, "g": str(gop), "bf": str(num_b_frames)}
    if crf is not None:
        options["crf"] = str(crf)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number, rgb in enumerate(chain([first], frames), start=1):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            container.mux(stream.encode(frame))
            yield number
        container.mux(stream.encode(None))
