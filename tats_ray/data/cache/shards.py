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
from typing import ClassVar, TypeVar

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
    file: ClassVar[str] = SETTINGS_FILE
    what: ClassVar[str] = "cache of frames"
    flags: ClassVar[str] = "--short-side or --quality"
    most_videos: ClassVar[int] = 1 << 30

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

    def table_folder(self, folder: Path) -> Path:
        return folder


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """What all films of `tats data transcode` have in common.

    Raises:
        UsageError: for a side, a quality or a distance out of range.
    """

    short_side: int
    """Pixels; larger videos are scaled down to it, smaller ones kept as they are."""
    crf: int
    """Of H.264, 1 to 51; lower is better and larger."""
    gop: int
    """Frames from one key frame to the next."""
    format: int = 1
    file: ClassVar[str] = "films.json"
    what: ClassVar[str] = "folder of films"
    flags: ClassVar[str] = "--short-side, or raise --crf or --gop"
    most_videos: ClassVar[int] = 16
    """Of a part: a command that was stopped continues behind the last whole one."""

    def __post_init__(self) -> None:
        if self.short_side < 16 or not 1 <= self.crf <= 51 or self.gop < 1:
            raise UsageError(
                f"--short-side {self.short_side} must be at least 16, --crf {self.crf} from 1 to "
                f"51, and --gop {self.gop} at least 1"
            )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a film of a video of this size: even, as colour is stored at half."""
        scale = min(self.short_side / min(width, height), 1.0)
        return max(2 * round(width * scale / 2), 2), max(2 * round(height * scale / 2), 2)

    def table_folder(self, folder: Path) -> Path:
        return folder / ".parts"


Settings = CacheSettings | FilmSettings


S = TypeVar("S", bound=Settings)


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


def read_settings(folder: Path, kind: type[S]) -> S | None:
    """The settings of what is stored in a folder; None where there is nothing yet.

    Raises:
        UsageError: for a folder with something else in it.
    """
    try:
        return kind(**json.loads((folder / kind.file).read_text(encoding="utf-8")))
    except FileNotFoundError:
        others = folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())
        if not others and (folder.is_dir() or not folder.exists()):
            return None
    except (OSError, ValueError, TypeError):
        pass
    raise UsageError(f"{folder} holds something other than a {kind.what}; name a new folder")


def open_folder(folder: Path, settings: Settings) -> None:
    """Make a folder, or go on with one of the same settings.

    Raises:
        UsageError: for other settings, with the difference, or a folder that takes no files.
    """
    found = read_settings(folder, type(settings))
    make_folder(settings.table_folder(folder))
    if found is None:
        write_once(folder / settings.file, f"{json.dumps(asdict(settings))}\n")
    elif found != settings:
        theirs, ours = asdict(found), asdict(settings)
        parts = [f"{name} {theirs[name]}, not {ours[name]}" for name in ours]
        differing = [
            part for part, name in zip(parts, ours, strict=True) if theirs[name] != ours[name]
        ]
        raise UsageError(
            f"{folder} is a {settings.what} with {'; '.join(differing)}; name a new folder, or "
            "repeat its settings"
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


def read_tables(folder: Path, *, has_frames: bool = True) -> list[StoredVideo]:
    """All videos of a cache, or of the tables of films.

    Args:
        has_frames: whether the frames of each table lie beside it.

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
            size = (folder / shard).stat().st_size if has_frames else 0
            if here and has_frames and size < here[-1].offset + here[-1].num_bytes:
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
