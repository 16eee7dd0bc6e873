"""Small videos of every kind that people have, made with PyAV alone."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from conftest import numbered_frames

NUM_FRAMES = 40
Stamp = Callable[[int], int]


def encode(
    path: Path,
    codec: str,
    *,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    stamp: Stamp = lambda number: number,
    audio_s: float = 0.0,
    num_frames: int = NUM_FRAMES,
) -> Path:
    """Numbered frames at 25 a second, with time stamps and a sound track of one's choice.

    Args:
        stamp: from the number of a frame to its time, in 25ths of a second.
        audio_s: seconds of sound; 0 for none.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width = stream.height = 64
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 25)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio_s else None
        for number, rgb in enumerate(numbered_frames(num_frames)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = stamp(number), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start in range(0, int(audio_s * 16000), 1024) if sound is not None else ():
            wave = np.sin(np.arange(start, start + 1024)[None] / 9).astype(np.float32)
            heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 16000, start, Fraction(1, 16000)
            container.mux(sound.encode(heard))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def _turned(path: Path) -> Path:
    """A quarter of a turn, in the display matrix."""
    encode(path, "libx264")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    one = (1 << 16).to_bytes(4, "big")
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    none = bytes(4)
    content[at : at + 36] = b"".join(
        [none, one, none, minus, none, none, none, none, (1 << 30).to_bytes(4, "big")]
    )
    path.write_bytes(content)
    return path


def _early(path: Path) -> Path:
    """The same packets with time stamps that begin 10 frames below zero."""
    even = encode(path.with_name(f"even_{path.name}"), "libx264", options={"bf": "2"})
    with (
        av.open(str(even)) as source,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size and packet.pts is not None and packet.dts is not None:
                shift = round(Fraction(10, 25) / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - shift,
                    packet.dts - shift,
                    copied,
                )
                target.mux(packet)
    return path


_OPEN_GOP = {"x265-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:log-level=none"}
_FAST = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
# With frames that are decoded and never shown.
_HIDDEN = {**_FAST, "auto-alt-ref": "1", "deadline": "good", "lag-in-frames": "12"}
_B_FRAMES = {"g": "12", "bf": "2"}


def zoo(folder: Path) -> list[Path]:
    """Write sound files of each kind."""
    return [
        encode(folder / "vp8.webm", "libvpx", options=_FAST),
        encode(folder / "vp8_hidden.webm", "libvpx", options=_HIDDEN),
        encode(folder / "vp9.webm", "libvpx-vp9", options=_FAST),
        encode(folder / "vp9_hidden.webm", "libvpx-vp9", options=_HIDDEN),
        encode(folder / "hevc_open.mp4", "libx265", options=_OPEN_GOP),
        encode(folder / "hevc_open.mkv", "libx265", options=_OPEN_GOP),
        encode(folder / "mpeg2.ts", "mpeg2video", options=_B_FRAMES),
        encode(folder / "h264.ts", "libx264", options=_B_FRAMES),
        encode(folder / "mjpeg.avi", "mjpeg", pixels="yuvj420p"),
        encode(folder / "prores.mov", "prores_ks", pixels="yuv422p10le"),
        _turned(folder / "turned.mp4"),
        encode(folder / "vfr.mp4", "libx264", stamp=lambda n: n + n * n // 9),
        encode(folder / "vfr.mkv", "libx264", stamp=lambda n: 3 * n - n % 3),
        _early(folder / "early.mp4"),
        _early(folder / "early.ts"),
        encode(folder / "sound.mp4", "libx264", audio_s=5),
        encode(folder / "sound.mkv", "libx264", audio_s=5),
        encode(folder / "xvid_b.avi", "mpeg4", options=_B_FRAMES),
        encode(folder / "keys.mp4", "libx264", options={"g": "4", "bf": "2"}),
    ]
