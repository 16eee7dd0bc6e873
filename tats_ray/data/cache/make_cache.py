"""`tats data cache`: all videos of a list decoded once, their frames kept as JPEG."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.words import byte_size, counted, first_few
from tats_ray.data.cache.films import film_path
from tats_ray.data.cache.frame_cache import version
from tats_ray.data.cache.shards import (
    CacheSettings,
    Settings,
    StoredVideo,
    open_folder,
    read_tables,
)
from tats_ray.data.cache.workers import Task, Workers
from tats_ray.data.manifest import VideoEntry, read_list

_MODULE = "tats_ray.data.cache.store_videos"
_NUM_TRIED = 8
_SHARD_BYTES = 128e6
"""A shard that is cut off by a fault is made again as a whole, so it is not too large."""
_SHARDS_A_JOB = 4
_ROOM = 1.1
"""Times the predicted size that must be free."""


@dataclass(frozen=True)
class Forecast:
    """What a cache would take."""

    num_videos: int
    num_bytes: float
    seconds: float
    """With the processes that were asked for."""


@dataclass(frozen=True)
class MadeCache:
    """What the cache holds of a list now."""

    folder: Path
    num_videos: int
    num_bytes: int
    broken: dict[str, str]
    """Videos that a run will replace in part or always, with reasons."""
    changed: int
    """Videos whose files changed while they were read."""

    def __str__(self) -> str:
        lines = [f"{self.folder}: {counted(self.num_videos, 'video')}, {byte_size(self.num_bytes)}"]
        if self.broken:
            what = f"{counted(len(self.broken), 'video')} cannot be read to the end"
            lines.append(f"note: {what}: {first_few(self.broken)}")
        if self.changed:
            what = f"{counted(self.changed, 'video')} changed meanwhile"
            lines.append(f"note: {what}; run the command again")
        return "\n".join(lines)


def make_cache(
    path: Path,
    out: Path,
    settings: Settings,
    *,
    root: str | None = None,
    jobs: int = 1,
    limit_s: float = 60.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_forecast: Callable[[Forecast], None] = lambda forecast: None,
) -> MadeCache:
    """Add those videos of a list that a cache, or a folder of films, does not hold yet.

    Args:
        path: the list.
        out: a new folder, or one that was begun with these settings.
        root: what relative paths of the list are relative to.
        jobs: processes that decode.
        limit_s: what a hundred frames may take, seconds.
        on_progress: called with (videos done, videos in all).
        on_forecast: called before the work begins.

    Raises:
        UsageError: for what is wrong with list or folder, a cache of other settings, or too small a
            disk. What is done by then stays.
    """
    if jobs < 1 or limit_s <= 0:
        raise UsageError(f"-j {jobs} and --limit-s {limit_s:g} must be above 0")
    entries = list({entry.path: entry for entry in read_list(path, root=root)}.values())
    open_folder(out, settings)
    left = _missing(out, settings, entries)
    if left:
        forecast = forecast_cache(left, settings, jobs, limit_s)
        on_forecast(forecast)
        _check_room(out, settings, forecast)
        with _draft_folder(out) as draft:
            workers = Workers(_MODULE, jobs, limit_s)
            common = {"settings": asdict(settings), "draft": str(draft), "out": str(out)}
            most = min(_shard_videos(left, forecast, jobs), settings.most_videos)
            workers.queue.extend(_shards(left, most, common))
            _run(workers, out, len(entries) - len(left), len(entries), on_progress)
    return _result(out, settings, entries)


def stored_videos(out: Path, settings: Settings) -> dict[tuple[str, int, int], StoredVideo]:
    """What a folder holds, whole, by the version of the video."""
    is_cache = isinstance(settings, CacheSettings)
    found = read_tables(settings.table_folder(out), has_frames=is_cache)
    return {v.version: v for v in found if is_cache or not v.stored or _has_film(out, v)}


def _has_film(out: Path, video: StoredVideo) -> bool:
    """Whether the film is still there as it was written."""
    try:
        return film_path(out, video.name).stat().st_size == video.num_bytes
    except OSError:
        return False


def _missing(out: Path, settings: Settings, entries: Sequence[VideoEntry]) -> list[VideoEntry]:
    known = stored_videos(out, settings)
    missing = []
    for entry in entries:
        try:
            if version(entry) not in known:
                missing.append(entry)
        except VideoError:  # it has vanished since the list was read
            continue
    return missing


def forecast_cache(
    left: Sequence[VideoEntry], settings: Settings, jobs: int, limit_s: float = 60.0
) -> Forecast:
    """Size and time of all, from the first frames of a few, by the size of the files."""
    sizes = [Path(entry.path).stat().st_size for entry in left]
    chosen = sorted({place * len(left) // _NUM_TRIED for place in range(_NUM_TRIED)})
    workers = Workers(_MODULE, jobs, limit_s)
    workers.queue.extend(
        {"settings": asdict(settings), "try": [left[index].path]} for index in chosen
    )
    tried = [found for _, answer in workers for found in answer.get("tried", []) if found]
    share = sum(sizes) / max(sum(found["file"] for found in tried), 1)
    return Forecast(
        len(left),
        share * sum(found["bytes"] for found in tried),
        share * sum(found["seconds"] for found in tried) / min(jobs, len(left)),
    )


def _check_room(out: Path, settings: Settings, forecast: Forecast) -> None:
    free = shutil.disk_usage(out).free
    if forecast.num_bytes * _ROOM > free:
        raise UsageError(
            f"{out} has {byte_size(free)} free, and the {settings.what} of "
            f"{counted(forecast.num_videos, 'video')} takes about {byte_size(forecast.num_bytes)}; "
            f"free space, or lower {settings.flags}"
        )


@contextmanager
def _draft_folder(out: Path) -> Iterator[Path]:
    """A hidden folder for shards that are not whole; those of dead commands are removed."""
    host = socket.gethostname()
    for old in out.glob(f".draft-{host}-*"):
        pid = old.name.split("-")[-2]
        if not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)
    draft = out / f".draft-{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _shard_videos(left: Sequence[VideoEntry], forecast: Forecast, jobs: int) -> int:
    """Videos of a shard."""
    num_shards = max(forecast.num_bytes / _SHARD_BYTES, _SHARDS_A_JOB * jobs)
    return max(int(len(left) / num_shards), 1)


def _shards(left: Sequence[VideoEntry], per_shard: int, common: dict[str, Any]) -> Iterator[Task]:
    """A task for each shard."""
    for first in range(0, len(left), per_shard):
        videos = [_asked(entry) for entry in left[first : first + per_shard]]
        yield {**common, "shard": f"shard_{uuid.uuid4().hex[:12]}", "videos": videos}


def _run(
    workers: Workers,
    out: Path,
    num_known: int,
    total: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Have all shards written; `num_known` of `total` videos are in the cache before."""
    done: dict[str, int] = {}
    on_progress(num_known, total)
    for task, answer in workers:
        if "refused" in answer:
            raise UsageError(
                f"{out} cannot be written ({answer['refused']}) after "
                f"{num_known + sum(done.values())} of {counted(total, 'video')}; free space, and "
                "run the same command again: it continues there"
            )
        if "video" in answer:
            done[task["shard"]] = done.get(task["shard"], 0) + 1
        if "lost" in answer:
            workers.queue.appendleft(_without(task, done.pop(task["shard"], 0), answer["lost"]))
        on_progress(num_known + sum(done.values()), total)


def _asked(entry: VideoEntry) -> dict[str, Any]:
    name, file_size, time = version(entry)
    return {"path": entry.path, "name": name, "file_size": file_size, "time": time, "reason": ""}


def _without(task: Task, num_done: int, how: str) -> Task:
    """The same shard once more, without the video over which its worker was lost."""
    videos = list(task["videos"])
    if num_done == len(videos):  # it was lost while it closed the shard
        return task
    reason = f"cannot be decoded (the decoder {how})"
    videos[num_done] = {**videos[num_done], "reason": reason}
    return {**task, "videos": videos}


def _result(out: Path, settings: Settings, entries: Sequence[VideoEntry]) -> MadeCache:
    known = stored_videos(out, settings)
    found = {}
    for entry in entries:
        with suppress(VideoError):
            if (video := known.get(version(entry))) is not None:
                found[entry.path] = video
    return MadeCache(
        out,
        len(found),
        sum(video.num_bytes for video in found.values()),
        {path: video.reason for path, video in found.items() if video.reason},
        len(entries) - len(found),
    )
