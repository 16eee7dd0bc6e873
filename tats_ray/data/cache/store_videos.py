"""Writes one shard of a cache, in a process that may be lost [workers.py].

`python -m tats_ray.data.cache.store_videos` takes a `shard` to write, or videos to `try`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import VideoError
from tats_ray.core.storage import sync_file
from tats_ray.data.cache.jpeg_frames import encode_frame
from tats_ray.data.cache.shards import (
    FRAMES_SUFFIX,
    LENGTH,
    TABLE_SUFFIX,
    CacheSettings,
    StoredVideo,
    table_text,
)
from tats_ray.data.cache.workers import Answer, Task, serve
from tats_ray.data.decode import one_video, probe, shown_frames

_FRAMES_A_SIGN = 100
"""A long video gives a sign of life so often."""
_FRAMES_TRIED = 60


def carry_out(task: Task) -> Iterator[Answer]:
    """Answers to a task: one for each video, signs of life, and the last one."""
    settings = CacheSettings(**task["settings"])
    if "try" in task:
        yield {"done": True, "tried": [_try(path, settings) for path in task["try"]]}
        return
    try:
        yield from _shard(task, settings)
    except OSError as error:
        yield {"done": True, "refused": error.strerror or str(error)}


def _shard(task: Task, settings: CacheSettings) -> Iterator[Answer]:
    draft, videos = Path(task["draft"]), []
    frames_file = draft / f"{task['shard']}{FRAMES_SUFFIX}"
    table_file = draft / f"{task['shard']}{TABLE_SUFFIX}"
    with frames_file.open("wb") as file:
        for asked in task["videos"]:
            video = StoredVideo(
                name=asked["name"],
                file_size=asked["file_size"],
                time=asked["time"],
                claimed=0,
                stored=0,
                width=0,
                height=0,
                offset=file.tell(),
                num_bytes=0,
                reason=asked["reason"],
            )
            if not video.reason:
                video = yield from _store(file, asked["path"], video, settings)
            videos.append(video)
            yield {"video": video.name, "reason": video.reason}
    table_file.write_text(table_text(videos), encoding="utf-8")
    for path in (frames_file, table_file):  # the table last: with it, the shard is there
        sync_file(path)
        path.rename(Path(task["out"], path.name))
        sync_file(Path(task["out"]))
    yield {"done": True}


def _store(
    file: BinaryIO, path: str, video: StoredVideo, settings: CacheSettings
) -> Generator[Answer, None, StoredVideo]:
    """Append a video to a shard, with a sign of life now and then; returns what is in it."""
    lengths: list[int] = []
    try:
        with one_video(path):
            info = probe(path)
        video = replace(video, claimed=info.num_frames, width=info.width, height=info.height)
        for jpeg in _jpegs(path, settings):
            file.write(jpeg)
            lengths.append(len(jpeg))
            if len(lengths) % _FRAMES_A_SIGN == 0:
                yield {}
    except VideoError as error:
        video = replace(video, reason=error.reason)
    file.write(np.array(lengths, LENGTH).tobytes())
    return replace(video, stored=len(lengths), num_bytes=file.tell() - video.offset)


def _jpegs(path: str, settings: CacheSettings) -> Iterator[bytes]:
    """The frames of a video, scaled and encoded.

    Raises:
        VideoError: where there are no more of them, though the file goes on.
    """
    shape = None
    with one_video(path):
        for number, frame in enumerate(shown_frames(path)):
            shape = shape or frame.shape
            if frame.shape != shape:
                (h, w), (h2, w2) = shape[:2], frame.shape[:2]
                raise VideoError(
                    path, f"changes its picture size from {w}x{h} to {w2}x{h2} at frame {number}"
                )
            yield encode_frame(_scaled(frame, settings), settings.quality)


def _scaled(
    frame: UInt8[np.ndarray, "H W 3"], settings: CacheSettings
) -> UInt8[np.ndarray, "h w 3"]:
    width, height = settings.size(frame.shape[1], frame.shape[0])
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    # Shrinking averages over all pixels that fall together, as the crop of a clip does.
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _try(path: str, settings: CacheSettings) -> dict[str, float] | None:
    """What a video would take, from its first frames; None for one that cannot be read."""
    began, sizes = time.perf_counter(), []
    try:
        num_frames = probe(path).num_frames
        counted_s = time.perf_counter() - began
        sizes = [len(jpeg) for jpeg in islice(_jpegs(path, settings), _FRAMES_TRIED)]
    except VideoError:
        pass
    if not sizes:
        return None
    scale = max(num_frames / len(sizes), 1.0)
    seconds = counted_s + scale * (time.perf_counter() - began - counted_s)
    return {"bytes": scale * sum(sizes), "seconds": seconds, "file": Path(path).stat().st_size}


if __name__ == "__main__":
    serve(carry_out)
