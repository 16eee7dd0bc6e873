"""Decodes videos one after the other, for `tats data check`, in a process that may be lost.

`python -m tats_ray.data.catalog.examine` reads a path a line from standard input, as JSON, and
answers with one `Examined` a line, the last of which is final: what is known is told before each
reader that jumps is tried, since that one may never come back. An empty line says that it is ready.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from tats_ray.core.errors import VideoError
from tats_ray.core.words import counted
from tats_ray.data.catalog.video_index import IndexRow
from tats_ray.data.decode import VideoInfo, all_frames, announced, probe
from tats_ray.data.readers.comparison import Comparison, checksum
from tats_ray.data.readers.jumping import installed, label_of

# A file that was cut has fewer; some sound ones lack a frame or two of what the header says.
_FEWEST_OF_ANNOUNCED = 0.9
_MOST_REPEATS = 0.1


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a video by now."""

    row: IndexRow
    trying: str = ""
    """The reader that is tried next; empty once all were."""

    @property
    def is_final(self) -> bool:
        return not self.trying

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Examined:
        said = json.loads(line)
        info = said["row"].pop("info")
        row = IndexRow(info=None if info is None else VideoInfo(**info), **said["row"])
        return cls(row, said["trying"])


def examine(path: str) -> Iterator[Examined]:
    """Decode a video from its start, then hold the readers that jump against it."""
    try:
        info = probe(path)
    except VideoError as error:
        yield Examined(IndexRow(None, True, error.reason))
        return
    row, sums = _from_the_start(path, info)
    if row.reason or Path(path).is_dir():
        yield Examined(replace(row, compared=labels()))
        return
    yield from _compared(path, row, sums)


def lost(found: Examined, how: str) -> IndexRow:
    """A sound video over which a reader `how` (crashes, hangs): another one takes it."""
    notes = "; ".join(filter(None, [found.row.notes, f"{found.trying} {how}"]))
    return replace(found.row, notes=notes, compared=labels())


def labels() -> str:
    """Names and versions of the readers that jump on this machine, separated by semicolons."""
    return "; ".join(label_of(reader) for reader in installed())


def _from_the_start(path: str, info: VideoInfo) -> tuple[IndexRow, list[int]]:
    """What is wrong with a video, and a checksum of each frame."""
    sums: list[int] = []
    reason, shape = "", None
    try:
        header, stored = announced(path)
        for frame in all_frames(path):
            if shape not in (None, frame.shape):
                raise VideoError(path, "changes its picture size")
            shape = frame.shape
            sums.append(checksum(frame))
        if len(sums) < info.num_frames:
            reason = f"ends after {len(sums)} of {counted(info.num_frames, 'frame')}"
        elif stored < _FEWEST_OF_ANNOUNCED * header:
            reason = f"ends after {stored} of the {counted(header, 'frame')} that it announces"
    except VideoError as error:
        reason = error.reason
        if sums:
            reason = f"breaks after {len(sums)} of {counted(info.num_frames, 'frame')}: {reason}"
    repeats = sum(a == b for a, b in pairwise(sums))
    notes = ""
    if repeats > _MOST_REPEATS * len(sums):
        notes = f"repeats the frame before in {repeats} of {counted(len(sums), 'frame')}"
    # A file whose packets show more frames than there are packets is right from now on.
    info = replace(info, num_frames=max(info.num_frames, len(sums)))
    return IndexRow(info, True, reason, notes), sums


def _compared(path: str, row: IndexRow, sums: list[int]) -> Iterator[Examined]:
    """The row after each of the readers that jump, of which any may crash or stall."""
    info, comparison = row.info, None
    assert info is not None
    for reader in installed():
        yield Examined(row, trying=reader)
        try:
            comparison = comparison or Comparison(path, info, sums)
            note = comparison.add(reader)
        except VideoError:
            break  # PyAV has just read it, and the file changes at this moment
        notes = "; ".join(filter(None, [row.notes, note]))
        row = replace(row, info=replace(info, reader=comparison.fastest), notes=notes)
    yield Examined(replace(row, compared=labels()))


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    print(file=answers, flush=True)  # from now on, time counts
    for line in sys.stdin:
        for examined in examine(json.loads(line)):
            print(examined.to_line(), file=answers, flush=True)


if __name__ == "__main__":
    main()
