"""Which readers are exact for a file, and which of those is the fastest: tried on the file itself.

A frame is the same where a checksum of its pixels is that of decoding from the start.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import VideoError
from tats_ray.core.words import counted
from tats_ray.data.decode import Backend, VideoInfo, all_frames, probe, read_frames
from tats_ray.data.readers.jumping import Jumping, installed, label_of

_PLACES, _FRAMES_A_PLACE = (5, 0, 3, 1, 6, 2), 3
"""Sixths of the video, in an order that jumps back and forth, and frames looked at in each."""
_CLIPS, _CLIP_FRAMES, _CLIP_STRIDE = (1, 2), 16, 2
"""Thirds of the video at which clips as of training are read, with a clock."""
_SHARE = 0.9
"""Of PyAV's time that a reader may take at most; smaller gains are noise."""
_FIRST_FRAMES = 3000
"""Decoded at first sight. `tats data check` decodes all of them."""


def checksum(frame: UInt8[np.ndarray, "H W 3"]) -> int:
    """Of the pixels of a frame."""
    return zlib.crc32(frame.tobytes())


class Comparison:
    """Readers held against decoding from the start, one after the other.

    Args:
        path: a video file, which PyAV can read.
        info: what it holds.
        sums: checksums of its first frames, or of all of them.

    Raises:
        VideoError: where PyAV cannot read it after all.
    """

    def __init__(self, path: str, info: VideoInfo, sums: Sequence[int]) -> None:
        self._path, self._total, self._sums = path, info.num_frames, sums
        self.fastest = ""
        """Label of the fastest reader that is exact; empty for PyAV."""
        _, seconds = self._read("pyav", self._clips())
        self._limit_s = _SHARE * seconds

    def add(self, reader: Jumping) -> str:
        """Try a reader.

        Returns:
            What is wrong with it, in words; empty where it is exact.
        """
        try:
            differing, _ = self._read(reader, [self._jumps()])
            differing_in_clips, seconds = self._read(reader, self._clips())
        except _OtherCountError as error:
            return f"{reader} counts {counted(error.found, 'frame')}, not {self._total}"
        except VideoError:
            return f"{reader} cannot read it"
        if differing or differing_in_clips:
            tried = len(self._jumps()) + sum(map(len, self._clips()))
            return f"{reader} shows {differing + differing_in_clips} of {tried} frames otherwise"
        if seconds < self._limit_s:
            self.fastest, self._limit_s = label_of(reader), seconds
        return ""

    def _jumps(self) -> list[int]:
        last = len(self._sums) - 1
        starts = [place * max(last + 1 - _FRAMES_A_PLACE, 0) // 6 for place in _PLACES]
        return [min(start + 2 * i, last) for start in starts for i in range(_FRAMES_A_PLACE)]

    def _clips(self) -> list[list[int]]:
        last = len(self._sums) - 1
        starts = [third * max(last + 1 - _CLIP_FRAMES * _CLIP_STRIDE, 0) // 3 for third in _CLIPS]
        return [
            [min(start + _CLIP_STRIDE * i, last) for i in range(_CLIP_FRAMES)] for start in starts
        ]

    def _read(self, reader: Backend, reads: Sequence[Sequence[int]]) -> tuple[int, float]:
        """How many frames differ, and CPU seconds, those of a library's own threads included."""
        differing, seconds = 0, 0.0
        for wanted in reads:

            def choose(total: int, wanted: Sequence[int] = wanted) -> Sequence[int]:
                if total != self._total:
                    raise _OtherCountError(self._path, total)
                return wanted

            began = time.process_time()
            frames = read_frames(self._path, choose, backend=reader)
            seconds += time.process_time() - began
            differing += sum(
                checksum(frame) != self._sums[index]
                for frame, index in zip(frames, wanted, strict=True)
            )
        return differing, seconds


class _OtherCountError(VideoError):
    """A library counts other frames than there are."""

    def __init__(self, path: str, found: int) -> None:
        super().__init__(path, "counts otherwise")
        self.found = found


def first_look(path: str) -> VideoInfo:
    """`probe`; where jumps pay, with the fastest of the readers that prove to be exact.

    Raises:
        VideoError: for a file that cannot be counted.
    """
    info = probe(path)
    if not info.jumps_pay or not (readers := installed()):
        return info
    try:
        with closing(all_frames(path)) as frames:
            sums = [checksum(frame) for frame in islice(frames, _FIRST_FRAMES)]
        comparison = Comparison(path, info, sums)
    except VideoError:
        return info  # the part that a clip needs may be sound
    for reader in readers:
        comparison.add(reader)
    return replace(info, reader=comparison.fastest)
