"""Reads exactly the frames that are asked for; with encode.py, all that touches a video library.

Frame i is the i-th frame that a player shows: what an edit list cuts away is not there. Frames are
as a player shows them: the display matrix is applied, mirrored or rotated. Of several video
streams the one that ffmpeg would pick is read. The sample aspect ratio is ignored.

A folder of numbered pictures is a video, too [catalog/frame_folders.py].

PyAV decodes from the start and is always exact. decord can jump, which pays in long videos with
many key frames, but it is exact only where `VideoInfo.is_decord_exact` says so. decord looks for a
frame by the time it would have at a constant rate, so every time stamp of the file must lie where
a constant rate puts it. The other conditions rest on 68 real files of many kinds: progressive
8-bit 4:2:0 H.264 in mp4, mov and mkv came out bit-identical to PyAV after any jump. The rest
showed frames of a neighbour (HEVC, MPEG-PS, edit lists), other colours (10 bit, interlaced, odd
sizes) or nothing (AV1, GIF, 1 px). MPEG-4 in avi (UCF101, HMDB51) goes to PyAV too: decord loses
count on some DivX files, and on the others PyAV is twice as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import TatsError, UsageError, VideoError
from tats_ray.core.words import counted
from tats_ray.data.catalog.frame_folders import frame_files, read_picture

if TYPE_CHECKING:
    import av

Backend = Literal["auto", "decord", "pyav"]
Choose = Callable[[int], Sequence[int]]

# Of these codecs each packet that is not discarded shows one frame, so that counting needs no
# decoding, unless it is one of two fields. MPEG-4 packs two frames into a packet now and then, VP8
# has packets that show none.
_ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "vp9", "av1", "libdav1d"})


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
    is_decord_exact: bool
    """Whether decord is known to return the right frames of such a file."""


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
        backend: "auto" takes decord where it is exact and PyAV elsewhere.
        look: tells what the video holds, without opening it where that is known; default `probe`.

    Raises:
        VideoError: for a file that does not yield these frames.
        UsageError: when the library is not installed.
    """
    if Path(path).is_dir():
        return _read_folder(path, choose)
    if backend == "decord":
        return _read_decord(path, choose, None)
    info = look() if look is not None else probe(path)
    if backend == "auto" and info.is_decord_exact:
        try:
            return _read_decord(path, choose, info.num_frames)
        except (VideoError, UsageError):
            pass  # PyAV reads it, or says what is wrong with it
    return _read_pyav(path, choose, info.num_frames)


def all_frames(path: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
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
        raise VideoError(path, f"cannot be used ({_one_line(error)})") from error


@lru_cache(maxsize=1 << 16)
def _probe(path: str, mtime_ns: int, size: int) -> VideoInfo:
    """`probe`, by file version: a file that is replaced is looked at again."""
    if Path(path).is_dir():
        files = frame_files(path)
        height, width, _ = read_picture(path, files[0]).shape
        return VideoInfo(len(files), width, height, 0.0, Path(files[0]).suffix[1:].lower(), False)
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
    is_decord_exact = is_plain and is_fit and _is_steady(stamps) and not orientation.is_mirrored
    if orientation.is_transposed:
        width, height = height, width
    return VideoInfo(num_frames, width, height, fps, codec, is_decord_exact)


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
    chosen = _checked(choose(len(files)), len(files))
    found = {index: read_picture(path, files[index]) for index in set(chosen)}
    sizes = {frame.shape[1::-1] for frame in found.values()}
    if len(sizes) > 1:
        (w, h), (w2, h2), *_ = sorted(sizes)
        raise VideoError(path, f"has pictures of several sizes, {w}x{h} and {w2}x{h2}")
    return np.stack([found[index] for index in chosen])


def _read_pyav(path: str, choose: Choose, num_frames: int) -> UInt8[np.ndarray, "F H W 3"]:
    chosen = _checked(choose(num_frames), num_frames)
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


def _read_decord(path: str, choose: Choose, expected: int | None) -> UInt8[np.ndarray, "F H W 3"]:
    """Reads with decord, if the file holds the `expected` number of frames (None for any)."""
    try:
        import decord
    except ImportError:
        raise UsageError("decord is not installed; pip install decord, or choose pyav") from None
    # DECORDError is a plain Exception, and it is not the only one.
    try:
        reader = decord.VideoReader(path, num_threads=1)
        total = len(reader)
    except Exception as error:
        raise VideoError(path, f"decord cannot open it ({_one_line(error)})") from error
    if total < 1 or expected not in (None, total):
        raise VideoError(
            path, f"decord counts {counted(total, 'frame')} where {expected} are shown"
        )
    chosen = _checked(choose(total), total)
    try:
        frames: np.ndarray = reader.get_batch(chosen).asnumpy()
    except Exception as error:
        raise VideoError(path, f"decord cannot decode it ({_one_line(error)})") from error
    return frames


def _checked(chosen: Sequence[int], num_frames: int) -> list[int]:
    """The indices as plain ints; a choice outside the video is a mistake of the caller."""
    indices = [int(index) for index in chosen]
    if not indices or min(indices) < 0 or max(indices) >= num_frames:
        raise ValueError(f"chose frames {indices} of a video with {num_frames}")
    return indices


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
        raise VideoError(path, f"cannot be decoded ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(text).splitlines()[0]
