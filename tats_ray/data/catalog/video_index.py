"""`train.index` beside `train.csv`: what each video holds, so that no file is counted twice.

All processes that read the list share the file, on any machine. Each adds a line for every video
that it is the first to look at, and reads what the others have added. A line counts only for the
file's size and time stamp, and only with its own checksum: what was cut off or mixed up by a fault
is looked at again. Clips are the same with and without an index.
"""

from __future__ import annotations

import csv
import io
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tats_ray.core.errors import VideoError
from tats_ray.data.decode import VideoInfo
from tats_ray.data.readers.comparison import first_look

_COLUMNS = "path,size,time,frames,fps,width,height,codec,reader,checked,reason,notes,compared,sum"

_Version = tuple[str, int, int]
"""Path beneath the root, size and time stamp of a file."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What is known of a video."""

    info: VideoInfo | None
    """None for a file that could not even be opened and counted."""
    is_checked: bool = False
    """Whether `tats data check` has decoded all of it."""
    reason: str = ""
    """Why it is broken; empty for a sound file."""
    notes: str = ""
    """What else the check found, separated by semicolons."""
    compared: str = ""
    """Readers, with versions, that the check held against PyAV, separated by semicolons."""


class VideoIndex:
    """The index of a list. A copy that is sent to another process reads the same file.

    Args:
        path: the index; it need not exist.
        root: what the list's relative paths are relative to. Paths beneath it are kept without it,
            so that the folder may lie elsewhere on another machine.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self._prefix = "" if root == Path() else f"{root}/"
        self._rows: dict[_Version, IndexRow] = {}
        self._read_to = 0
        self._is_cut = False
        self._takes_lines = True

    def __reduce__(self) -> tuple[object, tuple[Path, Path]]:
        return open_index, (self.path, self.root)

    def probe(self, video: str) -> VideoInfo:
        """As `decode.probe`; the file is opened only if no process has looked at it before.

        Raises:
            VideoError: for a file that cannot be counted.
        """
        version = self._version(video)
        row = self._find(version)
        if row is None:
            row = IndexRow(first_look(video))
            self._append(version, row)
        if row.info is None:
            raise VideoError(video, row.reason)
        return row.info

    def name(self, video: str) -> str:
        """The path as the list names it."""
        return video.removeprefix(self._prefix)

    def find(self, video: str) -> IndexRow | None:
        """What is known of a video as it is now.

        Raises:
            VideoError: when the file is not there.
        """
        return self._find(self._version(video))

    def add(self, video: str, row: IndexRow) -> None:
        """Tell all processes about a video."""
        self._append(self._version(video), row)

    def _version(self, video: str) -> _Version:
        try:
            status = Path(video).stat()
        except OSError as error:
            raise VideoError(video, f"cannot be opened ({error.strerror})") from error
        return self.name(video), status.st_size, status.st_mtime_ns

    def _find(self, version: _Version) -> IndexRow | None:
        if version not in self._rows:
            self._read_on()
        return self._rows.get(version)

    def _read_on(self) -> None:
        """Read the lines that were added since the last look."""
        with suppress(OSError):
            size = self.path.stat().st_size
            if size < self._read_to:
                self._read_to = 0  # another file has taken its place
            if size > self._read_to:
                with self.path.open("rb") as file:
                    file.seek(self._read_to)
                    whole, _, rest = file.read().rpartition(b"\n")
                self._read_to += len(whole) + bool(whole)
                self._is_cut = bool(rest)
                for line in whole.decode("utf-8", "replace").split("\n"):
                    if parsed := _parse(line):
                        self._rows[parsed[0]] = parsed[1]

    def _append(self, version: _Version, row: IndexRow) -> None:
        self._rows[version] = row
        if not self._takes_lines:
            return
        try:
            with self.path.open("ab", buffering=0) as file:
                start = "\n" if self._is_cut else ""
                head = f"{_COLUMNS}\n" if file.tell() == 0 else start
                # One call: lines of other processes come before or after it.
                file.write(f"{head}{_line(version, row)}\n".encode())
        except OSError:
            self._takes_lines = False  # a read-only or full disk costs time, not the run
        self._is_cut = False


@lru_cache(maxsize=64)
def open_index(path: Path, root: Path) -> VideoIndex:
    """The index of a list, one for each process."""
    return VideoIndex(path, root)


def _line(version: _Version, row: IndexRow) -> str:
    info = row.info
    holds: list[object] = [""] * 6
    if info is not None:
        reader = info.reader or "pyav"
        holds = [info.num_frames, info.fps, info.width, info.height, info.codec, reader]
    text = io.StringIO()
    checked = "yes" if row.is_checked else "no"
    found = [checked, row.reason, row.notes, row.compared]
    csv.writer(text, lineterminator="").writerow([*version, *holds, *found])
    return f"{text.getvalue()},{zlib.crc32(text.getvalue().encode()):08x}"


def _parse(line: str) -> tuple[_Version, IndexRow] | None:
    """What a line says; None for the header and for a line that is not whole."""
    text, _, checksum = line.rpartition(",")
    if checksum != f"{zlib.crc32(text.encode()):08x}":
        return None
    (fields,) = csv.reader([text])
    path, size, time, frames, fps, width, height, codec, reader, checked, *found = fields
    info = None
    if frames:
        name = "" if reader == "pyav" else reader
        info = VideoInfo(int(frames), int(width), int(height), float(fps), codec, name)
    return (path, int(size), int(time)), IndexRow(info, checked == "yes", *found)
