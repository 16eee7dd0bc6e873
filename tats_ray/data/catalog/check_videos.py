"""`tats data check`: every video of a list decoded once, in processes that may be lost."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.storage import make_folder, replace_text
from tats_ray.core.words import counted, reasons_csv
from tats_ray.data.catalog.examine import Examined, labels, lost
from tats_ray.data.catalog.video_index import IndexRow, VideoIndex, open_index
from tats_ray.data.manifest import VideoEntry, list_text, read_list

_COMMAND = [sys.executable, "-m", "tats_ray.data.catalog.examine"]
_STARTUP_S = 120.0
"""What a new process may take before the time of its first video counts."""
_DEATH_S = 30.0
"""For a process that has closed its end of the pipe to be gone."""
_NUM_NAMED = 5


@dataclass(frozen=True)
class CheckedList:
    """What was found, and where it was written."""

    rows: dict[str, IndexRow]
    """By path, in the order of the list."""
    ok_list: Path
    bad_table: Path
    repeated: Sequence[str] = ()
    """Paths that stand in more than one line; all of these lines stay."""

    @property
    def broken(self) -> dict[str, str]:
        return {path: row.reason for path, row in self.rows.items() if row.reason}

    def __str__(self) -> str:
        sound = [row.info for row in self.rows.values() if row.info and not row.reason]
        readers = Counter(info.reader.split(" ")[0] or "PyAV" for info in sound)
        parts = ", ".join(f"{count} read with {name}" for name, count in readers.most_common())
        lines = [f"{counted(len(self.rows), 'video')}: {len(sound)} sound ({parts or 'none'})"]
        groups: dict[str, list[str]] = {}
        for path, row in self.rows.items():
            for note in filter(None, row.notes.split("; ")):
                groups.setdefault(" ".join(note.split()[:2]), []).append(f"{path} {note}")
        for paths in groups.values():
            lines += [f"note: {line}" for line in paths[:_NUM_NAMED]]
            if len(paths) > _NUM_NAMED:
                lines.append(f"note: and {len(paths) - _NUM_NAMED} more of this kind")
        if self.repeated:
            lines.append(f"note: listed more than once: {', '.join(self.repeated[:_NUM_NAMED])}")
        lines += [f"broken: {path} {why}" for path, why in self.broken.items()]
        return "\n".join([*lines, f"{self.ok_list}\n{self.bad_table}"])


def check_list(
    path: Path,
    *,
    root: str | None = None,
    out: Path | None = None,
    jobs: int = 1,
    limit_s: float = 60.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckedList:
    """Decode every video that no earlier check has, and write index, sound and broken videos.

    Args:
        path: the list; its index lies beside it, and so do `NAME_ok.csv` and `NAME_bad.csv`.
        root: what relative paths are relative to.
        out: folder for all three files, for a list whose own folder takes none. Paths in them are
            absolute then.
        jobs: processes that decode.
        limit_s: what one file may take, seconds.
        on_progress: called with (videos done, videos in all).

    Raises:
        UsageError: for what is wrong with the list, or a folder that takes no files.
    """
    if jobs < 1 or limit_s <= 0:
        raise UsageError(f"-j {jobs} and --limit-s {limit_s:g} must be above 0")
    index: VideoIndex | None
    listed = read_list(path, root=root)
    if out is None:
        make_folder(path.parent, way_out="name another for the results with --out")
    else:
        index = open_index(make_folder(out) / f"{path.stem}.index", Path())
        listed = [replace(e, path=os.path.abspath(e.path), index=index) for e in listed]  # noqa: PTH100
        path = out / path.name
    entries = list({entry.path: entry for entry in listed}.values())
    index = entries[0].index
    assert index is not None
    rows: dict[str, IndexRow] = {}
    for entry in entries:
        known = _known(index, entry.path)
        if known is not None:
            rows[entry.path] = known
    left = [entry.path for entry in entries if entry.path not in rows]
    on_progress(len(rows), len(entries))
    for video, row in _examine_all(left, jobs, limit_s):
        rows[video] = row
        try:
            index.add(video, row)
        except VideoError as error:  # it has vanished meanwhile
            rows[video] = IndexRow(None, True, error.reason)
        on_progress(len(rows), len(entries))
    return _written(path, listed, {entry.path: rows[entry.path] for entry in entries}, index)


def _known(index: VideoIndex, video: str) -> IndexRow | None:
    """What an earlier check found; a file that it could not even open gets another chance, and so
    does one that was not compared with all readers of this machine.
    """
    try:
        row = index.find(video)
    except VideoError:
        return None
    if row is None or not row.is_checked or row.info is None:
        return None
    is_settled = set(labels().split("; ")) <= {"", *row.compared.split("; ")}
    return row if is_settled else None


def _written(
    path: Path, entries: Sequence[VideoEntry], rows: dict[str, IndexRow], index: VideoIndex
) -> CheckedList:
    counts = Counter(entry.path for entry in entries)
    checked = CheckedList(
        rows,
        path.with_name(f"{path.stem}_ok.csv"),
        path.with_name(f"{path.stem}_bad.csv"),
        [video for video, count in counts.items() if count > 1],
    )
    sound = [(index.name(e.path), e.label) for e in entries if not rows[e.path].reason]
    try:
        replace_text(checked.ok_list, list_text(sound) if sound else "")
        replace_text(checked.bad_table, reasons_csv(checked.broken))
        if index.path.is_file():
            shutil.copyfile(index.path, checked.ok_list.with_suffix(".index"))
    except OSError as error:
        raise UsageError(
            f"{path.parent} cannot be written ({error.strerror}); free space"
        ) from error
    return checked


class _Child:
    """A process that examines one video after the other."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.video = ""
        self.partial: Examined | None = None
        # A session of its own: Ctrl-C is for the parent, which ends it.
        # No buffer of Python's: what lies in one is nothing that a selector sees.
        self.process = subprocess.Popen(
            _COMMAND,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.deadline = 0.0
        self._is_ready = False
        self._said = b""

    def begin(self, video: str) -> None:
        assert self.process.stdin is not None
        self.video, self.partial = video, None
        self.deadline = time.monotonic() + self._limit_s + _STARTUP_S * (not self._is_ready)
        with suppress(BrokenPipeError):  # it has died, and `answer` says so
            self.process.stdin.write(json.dumps(video).encode() + b"\n")
            self.process.stdin.flush()

    def answer(self) -> IndexRow | None:
        """The row of the video, once that is known; takes all that it has said by now."""
        assert self.process.stdout is not None
        said = os.read(self.process.stdout.fileno(), 1 << 16)
        if not said:
            code = self.process.wait(_DEATH_S)
            what = f"signal {-code}" if code < 0 else f"exit code {code}"
            return self._lost(f"crashes ({what})")
        *lines, self._said = (self._said + said).split(b"\n")
        for line in lines:
            self.deadline = time.monotonic() + self._limit_s
            if not self._is_ready:
                self._is_ready = True
                continue
            examined = Examined.from_line(line.decode())
            if examined.is_final:
                return examined.row
            self.partial = examined
        return None

    def overdue(self) -> IndexRow | None:
        """The row of a video that took too long; the process is ended then."""
        if time.monotonic() < self.deadline:
            return None
        self.close()
        return self._lost(f"takes over {self._limit_s:g} s")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _lost(self, how: str) -> IndexRow:
        if self.partial is not None:
            return lost(self.partial, how)
        return IndexRow(None, True, f"cannot be decoded (the decoder {how})")


def _examine_all(
    videos: Sequence[str], jobs: int, limit_s: float
) -> Iterator[tuple[str, IndexRow]]:
    """Each video and its row, in the order in which they are done."""
    waiting = iter(videos)
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(min(jobs, len(videos))):
                _start(selector, next(waiting), limit_s)
            while busy := [key.data for key in selector.get_map().values()]:
                soonest = min(child.deadline for child in busy) - time.monotonic()
                ready = {key.data for key, _ in selector.select(max(soonest, 0.0))}
                for child in busy:
                    row = child.answer() if child in ready else child.overdue()
                    if row is None:
                        continue
                    video, following = child.video, next(waiting, None)
                    is_alive = child.process.poll() is None
                    if following is not None and is_alive:
                        child.begin(following)
                    else:
                        selector.unregister(child.process.stdout)
                        child.close()
                        if following is not None:
                            _start(selector, following, limit_s)
                    yield video, row
        finally:
            for key in list(selector.get_map().values()):
                key.data.close()


def _start(selector: selectors.BaseSelector, video: str, limit_s: float) -> None:
    child = _Child(limit_s)
    assert child.process.stdout is not None
    selector.register(child.process.stdout, selectors.EVENT_READ, child)
    child.begin(video)
