"""A cache on disk: `cache.json`, and shards of JPEG frames, each with a table of its videos.

`shard_NAME.jpegs` holds, for each video, its frames, one JPEG after the other, and then their
lengths (4 bytes each, lowest first). `shard_NAME.csv` says where each video begins and what it is.
The table appears last and whole, so a shard is complete or not there, and nothing changes in it
afterwards: any number of runs and nodes may read a cache, also while it grows.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder, replace_text

SETTINGS_FILE = "cache.json"
FRAMES_SUFFIX, TABLE_SUFFIX = ".jpegs", ".csv"
LENGTH = "<u4"
"""Lengths of frames, as numpy names the type."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What all frames of a cache have in common.

    Raises:
        UsageError: for a side or a quality out of range.
    """

    short_side: int
    """Pixels; larger videos are scaled down to it, smaller ones kept as they are."""
    quality: int
    """Of the JPEG frames, 1 to 95."""
    format: int = 1

    def __post_init__(self) -> None:
        if self.short_side < 16 or not 1 <= self.quality <= 95:
            raise UsageError(
                f"--short-side {self.short_side} must be at least 16, and --quality "
                f"{self.quality} from 1 to 95"
            )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in the cache of a video of this size."""
        scale = min(self.short_side / min(width, height), 1.0)
        return max(round(width * scale), 1), max(round(height * scale), 1)


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video in a cache."""

    name: str
    """Path beneath the root of the list."""
    file_size: int
    """Bytes of the file, and its time stamp in ns: another file of the name is not this one."""
    time: int
    claimed: int
    """Frames that the file claims to have; 0 for one that cannot be opened."""
    stored: int
    """Frames that could be decoded."""
    width: int
    """Pixels of the file's frames, once upright."""
    height: int
    offset: int
    """Where its frames begin in the shard."""
    num_bytes: int
    """Of frames and lengths."""
    reason: str
    """Why there are no more frames; empty where the file is sound."""
    shard: str = ""

    @property
    def version(self) -> tuple[str, int, int]:
        return self.name, self.file_size, self.time


_COLUMNS = [field.name for field in fields(StoredVideo)][:-1]


def read_settings(folder: Path) -> CacheSettings | None:
    """The settings of a cache; None where there is none yet.

    Raises:
        UsageError: for a folder with something else in it.
    """
    try:
        found = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        return CacheSettings(**found)
    except FileNotFoundError:
        others = folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())
        if not others and (folder.is_dir() or not folder.exists()):
            return None
    except (OSError, ValueError, TypeError):
        pass
    raise UsageError(f"{folder} holds something other than a cache of frames; name a new folder")


def open_folder(folder: Path, settings: CacheSettings) -> None:
    """Make a cache, or go on with one of the same settings.

    Raises:
        UsageError: for other settings, with the difference, or a folder that takes no files.
    """
    found = read_settings(folder)
    make_folder(folder)
    if found is None:
        write_once(folder / SETTINGS_FILE, f"{json.dumps(asdict(settings))}\n")
    elif found != settings:
        theirs, ours = asdict(found), asdict(settings)
        parts = [f"{name} {theirs[name]}, not {ours[name]}" for name in ours]
        differing = [
            part for part, name in zip(parts, ours, strict=True) if theirs[name] != ours[name]
        ]
        raise UsageError(
            f"{folder} is a cache with {'; '.join(differing)}; name a new folder, or repeat its "
            "settings"
        )


def write_once(path: Path, text: str) -> None:
    """A whole small file.

    Raises:
        UsageError: when the disk refuses it.
    """
    try:
        replace_text(path, text)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}); free space, and run the command again"
        ) from error


def table_text(videos: list[StoredVideo]) -> str:
    """The table of a shard."""
    text = io.StringIO(newline="")
    rows = [_COLUMNS, *(astuple(video)[:-1] for video in videos)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_tables(folder: Path) -> list[StoredVideo]:
    """All videos of a cache.

    Raises:
        UsageError: for a folder or a table that cannot be read, or frames that are not all there.
    """
    videos = []
    try:
        for path in sorted(folder.glob(f"*{TABLE_SUFFIX}")):
            shard = path.with_suffix(FRAMES_SUFFIX).name
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))[1:]
            here = [_parsed(row, shard) for row in rows]
            size = (folder / shard).stat().st_size
            if here and size < here[-1].offset + here[-1].num_bytes:
                raise ValueError(f"{shard} is cut off")
            videos += here
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise UsageError(
            f"the cache {folder} is damaged ({error}); copy it again, or make it again"
        ) from error
    return videos


def _parsed(row: list[str], shard: str) -> StoredVideo:
    name, *numbers, reason = row
    known = dict(zip(_COLUMNS[1:-1], map(int, numbers), strict=True))
    return StoredVideo(name=name, reason=reason, shard=shard, **known)
