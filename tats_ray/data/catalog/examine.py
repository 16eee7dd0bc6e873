"""Decodes videos one after the other, for `tats data check`, in a process that may be lost.

`python -m tats_ray.data.catalog.examine` reads a path a line from standard input, as JSON, and
answers with one `Examined` a line, or two: what decoding from the start shows is told first, since
decord may never come back. An empty line says that it is ready.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from tats_ray.core.errors import VideoError
from tats_ray.core.words import counted
from tats_ray.data.catalog.video_index import IndexRow
from tats_ray.data.decode import VideoInfo, all_frames, announced, probe, read_frames

# A file that was cut has fewer; some sound ones lack a frame or two of what the header says.
_FEWEST_OF_ANNOUNCED = 0.9
_MOST_REPEATS = 0.1
_NUM_PLACES, _FRAMES_A_PLACE = 6, 3


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a video by now."""

    row: IndexRow
    is_final: bool = True

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Examined:
        said = json.loads(line)
        info = said["row"].pop("info")
        row = IndexRow(info=None if info is None else VideoInfo(**info), **said["row"])
        return cls(row, said["is_final"])


def examine(path: str) -> Iterator[Examined]:
    """Decode a video from its start, then hold decord against it."""
    try:
        info = probe(path)
    except VideoError as error:
        yield Examined(IndexRow(None, True, error.reason))
        return
    row, sums = _from_the_start(path, info)
    if row.reason or Path(path).is_dir():
        yield Examined(row)
        return
    yield Examined(row, is_final=False)
    yield Examined(_with_decord(path, row, sums))


def lost(row: IndexRow, how: str) -> IndexRow:
    """A sound video over which decord `how` (crashes, hangs): another reader takes it."""
    info = None if row.info is None else replace(row.info, is_decord_exact=False)
    return replace(row, info=info, notes="; ".join(filter(None, [row.notes, f"decord {how}"])))


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
            sums.append(zlib.crc32(frame.tobytes()))
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
    return IndexRow(info, True, reason, notes), sums


def _with_decord(path: str, row: IndexRow, sums: list[int]) -> IndexRow:
    """The same row, and whether decord shows the same frames after jumps."""
    total = len(sums)
    starts = [
        place * max(total - _FRAMES_A_PLACE, 0) // _NUM_PLACES for place in (5, 0, 3, 1, 6, 2)
    ]
    wanted = [min(start + 2 * i, total - 1) for start in starts for i in range(_FRAMES_A_PLACE)]

    counts: list[int] = []

    def choose(found: int) -> list[int]:
        counts.append(found)
        if found != total:
            raise VideoError(path, "counts otherwise")
        return wanted

    try:
        frames = read_frames(path, choose, backend="decord")
    except VideoError:
        is_other = counts and counts[0] != total
        return lost(
            row, f"counts {counts[0]} frames, not {total}" if is_other else "cannot read it"
        )
    differing = sum(
        zlib.crc32(frame.tobytes()) != sums[index]
        for frame, index in zip(frames, wanted, strict=True)
    )
    if differing:
        return lost(row, f"shows {differing} of {len(wanted)} frames otherwise")
    return row


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    print(file=answers, flush=True)  # from now on, time counts
    for line in sys.stdin:
        for examined in examine(json.loads(line)):
            print(examined.to_line(), file=answers, flush=True)


if __name__ == "__main__":
    main()
