"""Writes one shard of a cache, or some films, in a process that may be lost [workers.py].

`python -m tats_ray.data.cache.store_videos` takes a `shard` to write, or videos to `try`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import VideoError
from tats_ray.data.cache.films import FRAMES_A_SIGN, film_path, move_in, store_film, try_film
from tats_ray.data.cache.jpeg_frames import encode_frame
from tats_ray.data.cache.shards import (
    FRAMES_SUFFIX,
    LENGTH,
    TABLE_SUFFIX,
    CacheSettings,
    FilmSettings,
    Settings,
    StoredVideo,
    table_text,
)
from tats_ray.data.cache.workers import Answer, Task, serve
from tats_ray.data.decode import one_video, probe, shown_frames

_FRAMES_TRIED = 60


def carry_out(task: Task) -> Iterator[Answer]:
    """Answers to a task: one for each video, signs of life, and the last one."""
    kind = FilmSettings if "crf" in task["settings"] else CacheSettings
    settings: Settings = kind(**task["settings"])
    if "try" in task:
        yield {"done": True, "tried": [_try(path, settings) for path in task["try"]]}
        return
    try:
        if isinstance(settings, FilmSettings):
            yield from _films(task, settings)
        else:
            yield from _shard(task, settings)
    except OSError as error:
        yield {"done": True, "refused": error.strerror or str(error)}


def _shard(task: Task, settings: CacheSettings) -> Iterator[Answer]:
    draft, videos = Path(task["draft"]), []
    frames_file = draft / f"{task['shard']}{FRAMES_SUFFIX}"
    with frames_file.open("wb") as file:
        for asked in task["videos"]:
            video = replace(_unread(asked), offset=file.tell())
            if not video.reason:
                video = yield from _store(file, asked["path"], video, settings)
            videos.append(video)
            yield {"video": video.name, "reason": video.reason}
    move_in(frames_file, Path(task["out"], frames_file.name))
    _add_table(task, settings, videos)  # last: with it, the shard is there
    yield {"done": True}


def _films(task: Task, settings: FilmSettings) -> Iterator[Answer]:
    draft, videos = Path(task["draft"], f"{task['shard']}.mp4"), []
    for asked in task["videos"]:
        video = _unread(asked)
        if not video.reason:
            frames = scaled_frames(asked["path"], settings)
            film = film_path(Path(task["out"]), video.name)
            video = yield from store_film(asked["path"], frames, video, draft, film, settings)
        videos.append(video)
        yield {"video": video.name, "reason": video.reason}
    _add_table(task, settings, videos)
    yield {"done": True}


def _unread(asked: dict[str, Any]) -> StoredVideo:
    """What is known of a video before it is opened."""
    known = {key: asked[key] for key in ("name", "file_size", "time", "reason")}
    return StoredVideo(**known, claimed=0, stored=0, width=0, height=0, offset=0, num_bytes=0)


def _add_table(task: Task, settings: Settings, videos: list[StoredVideo]) -> None:
    table_file = Path(task["draft"], f"{task['shard']}{TABLE_SUFFIX}")
    table_file.write_text(table_text(videos), encoding="utf-8")
    move_in(table_file, settings.table_folder(Path(task["out"])) / table_file.name)


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
            if len(lengths) % FRAMES_A_SIGN == 0:
                yield {}
    except VideoError as error:
        video = replace(video, reason=error.reason)
    file.write(np.array(lengths, LENGTH).tobytes())
    return replace(video, stored=len(lengths), num_bytes=file.tell() - video.offset)


def _jpegs(path: str, settings: CacheSettings) -> Iterator[bytes]:
    for frame in scaled_frames(path, settings):
        yield encode_frame(frame, settings.quality)


def scaled_frames(path: str, settings: Settings) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The frames of a video, as large as they are stored.

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
            yield _scaled(frame, settings)


def _scaled(frame: UInt8[np.ndarray, "H W 3"], settings: Settings) -> UInt8[np.ndarray, "h w 3"]:
    width, height = settings.size(frame.shape[1], frame.shape[0])
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    # Shrinking averages over all pixels that fall together, as the crop of a clip does.
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _try(path: str, settings: Settings) -> dict[str, float] | None:
    """What a video would take, from its first frames; None for one that cannot be read."""
    began, num_tried, num_bytes = time.perf_counter(), 0, 0
    try:
        num_frames = probe(path).num_frames
        counted_s = time.perf_counter() - began
        frames = islice(scaled_frames(path, settings), _FRAMES_TRIED)
        if isinstance(settings, FilmSettings):
            num_tried, num_bytes = try_film(frames, settings)
        else:
            for frame in frames:
                num_tried += 1
                num_bytes += len(encode_frame(frame, settings.quality))
    except VideoError:
        pass
    if not num_tried:
        return None
    scale = max(num_frames / num_tried, 1.0)
    seconds = counted_s + scale * (time.perf_counter() - began - counted_s)
    return {"bytes": scale * num_bytes, "seconds": seconds, "file": Path(path).stat().st_size}


if __name__ == "__main__":
    serve(carry_out)
