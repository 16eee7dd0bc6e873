"""Clips out of a cache: the frames and crops of the videos themselves, but for the JPEG."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.words import counted
from tats_ray.data.cache.jpeg_frames import PartDecoder
from tats_ray.data.cache.shards import (
    LENGTH,
    SETTINGS_FILE,
    CacheSettings,
    StoredVideo,
    read_settings,
    read_tables,
)
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.transforms import CropBox

_MOST_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class StoredClip:
    """Frames of a clip, not decoded yet."""

    video: StoredVideo
    jpegs: Sequence[bytes]
    size: tuple[int, int]
    """Width and height of the stored frames, pixels."""

    def cut(self, box: CropBox) -> UInt8[np.ndarray, "F h w 3"]:
        """What is in a box of the video, at the scale of the cache."""
        return self._decode(box.scaled((self.video.width, self.video.height), self.size))

    def frames(self) -> UInt8[np.ndarray, "F H W 3"]:
        """Whole frames."""
        return self._decode(CropBox(0, 0, *self.size))

    def _decode(self, box: CropBox) -> UInt8[np.ndarray, "F h w 3"]:
        decoder = PartDecoder()
        sides = box.left, box.top, box.width, box.height
        frames = np.empty((len(self.jpegs), box.height, box.width, 3), np.uint8)
        for number, jpeg in enumerate(self.jpegs):  # at once, while it is in the processor's cache
            frames[number] = decoder(jpeg, *sides)
        return frames


class FrameCache:
    """A folder that `tats data cache` has written. Copies in other processes read the same files.

    Raises:
        UsageError: for a folder that is no cache, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        settings = read_settings(folder, CacheSettings)
        if settings is None:
            raise UsageError(
                f"data.cache {folder} is no cache: it has no {SETTINGS_FILE}; make one with "
                f"`tats data cache LIST {folder}`"
            )
        self.folder, self.settings = folder, settings
        self._videos = {video.version: video for video in read_tables(folder)}
        self._names = {video.name for video in self._videos.values()}
        self._files = lru_cache(_MOST_OPEN_FILES)(_File)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return open_cache, (self.folder,)

    def find(self, entry: VideoEntry) -> StoredVideo | None:
        """The video as its file is now; None where the cache does not have it.

        Raises:
            VideoError: when the file is not there.
        """
        return self._videos.get(version(entry))

    def check(self, entries: Sequence[VideoEntry], path: str, root: str = "") -> None:
        """Refuse a list that the cache does not hold.

        Args:
            path, root: where the entries come from, for the message.

        Raises:
            UsageError: for videos that are missing, or whose files have changed.
        """
        missing = [entry for entry in entries if self.find(entry) is None]
        if not missing:
            return
        changed = [entry for entry in missing if version(entry)[0] in self._names]
        first = (changed or missing)[0].path
        how = "changed after they were put into" if changed else "are not in"
        command = f"tats data cache {path} {self.folder}" + f" --root {root}" * bool(root)
        settings = f" --short-side {self.settings.short_side} --quality {self.settings.quality}"
        raise UsageError(
            f"{len(changed or missing)} of the {counted(len(entries), 'video')} of {path} {how} "
            f"data.cache {self.folder}, such as {first}; run `{command}{settings}`"
        )

    def read(self, entry: VideoEntry, choose: Callable[[int], Sequence[int]]) -> StoredClip:
        """The frames that `choose` picks, as `read_frames` would.

        Raises:
            VideoError: for a video that is not in the cache, or could not be decoded so far.
        """
        video = self.find(entry)
        if video is None:
            raise VideoError(entry.path, f"has changed since the cache {self.folder} was made")
        if video.claimed == 0:
            raise VideoError(entry.path, video.reason)
        chosen = choose(video.claimed)
        if max(chosen) >= video.stored:
            if video.reason or not video.stored:
                raise VideoError(entry.path, video.reason or "has no frames")
            chosen = choose(video.stored)
        try:
            jpegs = self._jpegs(video, chosen)
        except OSError as error:
            raise VideoError(
                entry.path, f"cannot be read from {self.folder / video.shard} ({error})"
            ) from error
        return StoredClip(video, jpegs, self.settings.size(video.width, video.height))

    def _jpegs(self, video: StoredVideo, chosen: Sequence[int]) -> list[bytes]:
        file = self._files(self.folder / video.shard)
        size = np.dtype(LENGTH).itemsize * video.stored
        table = file.read(video.offset + video.num_bytes - size, size)
        ends = np.cumsum(np.frombuffer(table, LENGTH), dtype=np.int64)
        starts = video.offset + np.concatenate([[0], ends])
        once = {i: file.read(int(starts[i]), int(starts[i + 1] - starts[i])) for i in set(chosen)}
        return [once[i] for i in chosen]


class _File:
    """Reads at any place, without a position that forked processes would share."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def read(self, offset: int, size: int) -> bytes:
        found = os.pread(self._handle, size, offset)
        if len(found) < size:
            raise OSError("it is cut off")
        return found


def version(entry: VideoEntry) -> tuple[str, int, int]:
    """Name, size and time stamp of a file as it is now.

    Raises:
        VideoError: when it is not there.
    """
    try:
        status = Path(entry.path).stat()
    except OSError as error:
        raise VideoError(entry.path, f"cannot be opened ({error.strerror})") from error
    return name_of(entry), status.st_size, status.st_mtime_ns


def name_of(entry: VideoEntry) -> str:
    """Path beneath the root of the list."""
    return entry.path if entry.index is None else entry.index.name(entry.path)


@overload
def open_cache(folder: Path) -> FrameCache: ...
@overload
def open_cache(folder: str) -> FrameCache | None: ...
def open_cache(folder: Path | str) -> FrameCache | None:
    """The cache in a folder, one for each process; None where a configuration names none."""
    if not folder:
        return None
    path = Path(folder)
    # A shard that appears changes the time stamp, so a cache that has grown is read again.
    return _open(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=8)
def _open(folder: Path, time_ns: int) -> FrameCache:
    return FrameCache(folder)
