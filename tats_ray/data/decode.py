"""Reads exactly the frames that are asked for; with encode.py, all that touches a video library.

Frame i is the i-th frame that a player shows: what an edit list cuts away is not there. Frames are
as a player shows them: the display matrix is applied, mirrored or rotated. Of several video
streams the one that ffmpeg would pick is read. The sample aspect ratio is ignored.

A folder of numbered pictures is a video, too [catalog/frame_folders.py].

PyAV decodes from the start and is always exact. The readers that jump pay in long videos with many
key frames [readers/jumping.py]. They show other frames of some files: neighbours (HEVC, MPEG-PS,
edit lists), other colours (10 bit, interlaced, odd sizes), or none. So "auto" takes one only where
it was compared with PyAV on that very file [readers/comparison.py], and PyAV everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import TatsError, UsageError, VideoError
from tats_ray.data.catalog.frame_folders import frame_files, read_picture
from tats_ray.data.readers.jumping import (
    Choose,
    checked,
    named,
    one_line,
    read_jumping,
)

if TYPE_CHECKING:
    import av

Backend = Literal["auto", "decord", "pyav", "torchcodec"]

# Of these codecs each packet that is not discarded shows one frame, so that counting needs no
# decoding, unless it is one of two fields. MPEG-4 packs two frames into a packet now and then, VP8
# has packets that show none.
_ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "vp9", "av1", "libdav1d"})

_GAIN, _CLIP_SPAN = 4, 64
"""How many times more frames a reader decodes from the start than from the key frame before a clip,
half of the video against half of the way between two key frames and the clip: then jumps pay."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video holds, counted and not taken from its header."""

    num_frames: int
    width: int
    """Pixels, once upright."""
    height: int
    fps: float
    """Mean frames a second; 0 where the file does not say."""
    codec: str
    reader: str = ""
    """Name and version of the fastest reader that proved exact on this file; empty for PyAV."""
    jumps_pay: bool = field(default=False, compare=False)
    """Whether a reader that jumps would save much, and may be tried in any process."""


def probe(path: str) -> VideoInfo:
    """Size, length and codec of a video; remembered for as long as the file does not change.

    Raises:
        VideoError: when the file is missing, unreadable or without a single frame.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror})") from error
    return _probe(path, status.st_mtime_ns, status.st_size)


def read_frames(
    path: str,
    choose: Choose,
    *,
    backend: Backend = "auto",
    look: Callable[[], VideoInfo] | None = None,
) -> UInt8[np.ndarray, "F H W 3"]:
    """The chosen frames of a video, upright RGB, 0-255.

    Args:
        path: the video file.
        choose: from the number of frames to the indices wanted, in any order, repeats allowed. It
            must be pure: it is called again, with the true number, where a file ends early.
        backend: "auto" takes the fastest reader that proved exact on this file, mostly PyAV.
        look: tells what the video holds, without opening it where that is known; default `probe`.

    Raises:
        VideoError: for a file that does not yield these frames.
        UsageError: when the library is not installed.
    """
    if Path(path).is_dir():
        return _read_folder(path, choose)
    if backend == "decord" or backend == "torchcodec":
        return read_jumping(path, choose, backend)
    info = look() if look is not None else probe(path)
    if backend == "auto" and (reader := named(info.reader)) is not None:
        try:
            return read_jumping(path, choose, reader, expected=info.num_frames)
        except (VideoError, UsageError):
            pass  # PyAV reads it, or says what is wrong with it
    return _read_pyav(path, choose, info.num_frames)


def all_frames(path: str) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Every frame, decoded from the start: what other ways to read are held against.

    Raises:
        VideoError: where the file breaks off, or where the decoder complains of damage that it
            would hide, with its words.
    """
    if Path(path).is_dir():
        for picture in frame_files(path):
            yield read_picture(path, picture)
        return
    with _video_errors(path), _complaints() as said, closing(_decode(path)) as frames:
        to_rgb = RgbConverter()
        for frame in frames:
            if said or frame.is_corrupt:
                break
            yield to_rgb(frame)
        else:
            if not said:
                return
        raise VideoError(
            path, f"is damaged ({': '.join(said[0][1:]).strip() if said else 'in part'})"
        )


def timed_frames(path: str) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    """Every frame with its time, seconds from the first one's; 25 a second where none is known.

    Raises:
        VideoError: where the video cannot be decoded.
    """
    if Path(path).is_dir():
        for index, picture in enumerate(frame_files(path)):
            yield index / 25, read_picture(path, picture)
        return
    with _video_errors(path), closing(_decode(path)) as frames:
        to_rgb, first = RgbConverter(), 0.0
        for index, frame in enumerate(frames):
            time_s = index / 25 if frame.time is None else frame.time
            first = first if index else time_s
            yield time_s - first, to_rgb(frame)


def shown_frames(path: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Every frame that a clip could show, in order, however damaged.

    Raises:
        VideoError: where there are no more, because the file breaks off.
    """
    if Path(path).is_dir():
        yield from all_frames(path)
        return
    with _video_errors(path), closing(_decode(path)) as frames:
        yield from map(RgbConverter(), frames)


def announced(path: str) -> tuple[int, int]:
    """How many frames the header of a video announces (0 for none), and how many are stored."""
    if Path(path).is_dir():
        return 0, len(frame_files(path))
    with _video_errors(path), _open(path) as (container, stream):
        return stream.frames, sum(1 for packet in container.demux(stream) if packet.size)


@contextmanager
def _complaints() -> Iterator[list[tuple[int, str, str]]]:
    """What ffmpeg says of errors inside the block: level, component, text."""
    import av

    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_level(before)


@contextmanager
def one_video(path: str) -> Iterator[None]:
    """Turns whatever goes wrong over one file into a `VideoError`, which costs a run one clip.

    Decoders, croppers and resizers raise all sorts of things over odd files; none of them should
    end a run of days. Mistakes of the caller keep their own errors.
    """
    try:
        yield
    except (TatsError, ImportError):
        raise
    except Exception as error:
        raise VideoError(path, f"cannot be used ({one_line(error)})") from error


@lru_cache(maxsize=1 << 16)
def _probe(path: str, mtime_ns: int, size: int) -> VideoInfo:
    """`probe`, by file version: a file that is replaced is looked at again."""
    if Path(path).is_dir():
        files = frame_files(path)
        height, width, _ = read_picture(path, files[0]).shape
        return VideoInfo(len(files), width, height, 0.0, Path(files[0]).suffix[1:].lower())
    if size == 0:
        raise VideoError(path, "is empty (0 bytes)")
    with _video_errors(path), _open(path) as (container, stream):
        codec, fps = stream.codec_context.name, float(stream.average_rate or 0)
        is_simple = (
            len(container.streams.video) == 1
            and bool({"mp4", "matroska"} & set(container.format.name.split(",")))
            and stream.codec_context.pix_fmt in ("yuv420p", "yuvj420p")
        )
        packets = [packet for packet in container.demux(stream) if packet.size]
        stamps = [packet.pts for packet in packets if not packet.is_discard]
        is_cut = len(stamps) < len(packets)
        key_frames = sum(packet.is_keyframe for packet in packets)
        # decord makes room for all frames of the header, and ends the process where it cannot.
        is_simple = is_simple and stream.frames in (0, len(packets))
    with _video_errors(path), closing(_decode(path)) as frames:
        first = next(frames, None)
        if first is None:
            raise VideoError(path, "has no frames")
        # Fields share a stamp, have none, or come from a source that is marked as interlaced.
        is_per_frame = len(set(stamps) - {None}) == len(stamps) and not first.interlaced_frame
        if codec in _ONE_FRAME_PER_PACKET and is_per_frame:
            num_frames = len(stamps)
        else:
            num_frames = 1 + sum(1 for _ in frames)
    width, height = first.width, first.height
    orientation = _orientation(first)
    is_plain = codec == "h264" and is_simple and not is_cut and not first.interlaced_frame
    is_fit = width % 2 == height % 2 == 0 and min(width, height) >= 16
    # What no library is known to crash or hang on.
    is_tame = is_plain and is_fit and _is_steady(stamps) and not orientation.is_mirrored
    between_keys = len(packets) / max(key_frames, 1)
    jumps_pay = is_tame and num_frames / 2 > _GAIN * (between_keys / 2 + _CLIP_SPAN)
    if orientation.is_transposed:
        width, height = height, width
    return VideoInfo(num_frames, width, height, fps, codec, jumps_pay=jumps_pay)


def _is_steady(stamps: Sequence[int | None]) -> bool:
    """Whether frames with these time stamps follow each other at one rate, to within a tick."""
    found = sorted(stamp for stamp in stamps if stamp is not None)
    if not found or len(found) < len(stamps):
        return False
    step = (found[-1] - found[0]) / max(len(found) - 1, 1)
    return all(abs(stamp - found[0] - i * step) <= 1 for i, stamp in enumerate(found)) and (
        step >= 1 or len(found) == 1
    )


@dataclass(frozen=True, slots=True)
class _Orientation:
    """How a stored picture becomes the one that is shown: transposed first, then flipped."""

    is_transposed: bool = False
    flips_x: bool = False
    flips_y: bool = False

    @property
    def is_mirrored(self) -> bool:
        return self.is_transposed ^ self.flips_x ^ self.flips_y

    def apply(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        shown = rgb.transpose(1, 0, 2) if self.is_transposed else rgb
        return shown[:: -1 if self.flips_y else 1, :: -1 if self.flips_x else 1]


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """What the display matrix of a frame asks for; one that is no quarter turn asks for nothing.

    The matrix takes a stored pixel (x, y) to (a x + c y, b x + d y) on the screen.
    """
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return _Orientation()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if a and d and not b and not c:
        return _Orientation(flips_x=a < 0, flips_y=d < 0)
    if b and c and not a and not d:
        return _Orientation(is_transposed=True, flips_x=c < 0, flips_y=b < 0)
    return _Orientation()


class RgbConverter:
    """Frames of one file as upright RGB, 0-255.

    `VideoFrame.to_ndarray` starts a pool of threads for every frame, which takes two to twenty
    times as long for the same bytes.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        except TypeError:  # an older PyAV, which starts no threads
            rgb = self._reformatter.reformat(frame, format="rgb24")
        return _orientation(frame).apply(rgb.to_ndarray())


def _read_folder(path: str, choose: Choose) -> UInt8[np.ndarray, "F H W 3"]:
    files = frame_files(path)
    chosen = checked(choose(len(files)), len(files))
    found = {index: read_picture(path, files[index]) for index in set(chosen)}
    sizes = {frame.shape[1::-1] for frame in found.values()}
    if len(sizes) > 1:
        (w, h), (w2, h2), *_ = sorted(sizes)
        raise VideoError(path, f"has pictures of several sizes, {w}x{h} and {w2}x{h2}")
    return np.stack([found[index] for index in chosen])


def _read_pyav(path: str, choose: Choose, num_frames: int) -> UInt8[np.ndarray, "F H W 3"]:
    chosen = checked(choose(num_frames), num_frames)
    wanted, found, seen = frozenset(chosen), {}, 0
    last = max(chosen)
    with _video_errors(path), closing(_decode(path)) as frames:
        size, to_rgb = None, RgbConverter()
        for seen, frame in enumerate(frames, start=1):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise VideoError(
                    path,
                    f"changes its picture size from {size[0]}x{size[1]} to "
                    f"{frame.width}x{frame.height} at frame {seen - 1}",
                )
            if seen - 1 in wanted:
                found[seen - 1] = to_rgb(frame)
            if seen > last:
                break
    if seen > last:
        return np.stack([found[index] for index in chosen])
    if seen == 0:
        raise VideoError(path, "has no frames")
    return _read_pyav(path, choose, seen)  # shorter than it claims


def _decode(path: str) -> Generator[av.VideoFrame, None, None]:
    """All frames in the order they are shown; close the iterator to close the file."""
    with _open(path) as (container, stream):
        yield from container.decode(stream)


@contextmanager
def _open(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    import av

    # Old files carry titles in any encoding, and nobody wants the title.
    with av.open(path, metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        if stream is None or container.format.name == "tty":  # ffmpeg renders text as a film
            raise VideoError(path, "has no video stream")
        assert isinstance(stream, av.VideoStream)
        # Frame threads can deadlock when decoding stops early, and loaders have processes anyway.
        stream.thread_type = "NONE"
        yield container, stream


@contextmanager
def _video_errors(path: str) -> Iterator[None]:
    """Turns what the libraries raise over a bad file into one type."""
    try:
        import av
    except ImportError:
        raise UsageError("PyAV is not installed; pip install av") from None
    try:
        yield
    except (av.FFmpegError, OSError, ValueError, IndexError, RuntimeError) as error:
        raise VideoError(path, f"cannot be decoded ({one_line(error)})") from error
