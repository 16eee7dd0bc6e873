"""Videos as people have them: exact against a sequential decode, or refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import numbered_frames, read_numbers
from video_zoo import zoo

from tats_ray.core.errors import VideoError
from tats_ray.data.catalog.check_videos import check_list
from tats_ray.data.catalog.video_index import IndexRow, open_index
from tats_ray.data.decode import Backend, read_frames
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.data.readers.jumping import JUMPING, installed, why_missing

REPO = Path(__file__).parents[4]
LIMIT_S = 60.0
NUM_KINDS = 19


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    files = zoo(tmp_path_factory.mktemp("zoo"))
    assert len(files) == NUM_KINDS
    return files


def sequential(path: str) -> list[int]:
    """Checksums of the frames that a bare loop shows, up to the first error."""
    sums = []
    before = av.logging.get_level()
    av.logging.set_level(None)
    try:
        with av.open(path, metadata_errors="ignore") as container:
            for frame in container.decode(container.streams.best("video")):
                upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                sums.append(zlib.crc32(np.ascontiguousarray(upright).tobytes()))
    except (av.FFmpegError, ValueError):
        pass
    finally:
        av.logging.set_level(before)
    return sums


def shown(path: str, chosen: list[int], backend: Backend, row: IndexRow | None = None) -> list[int]:
    info = row.info if row is not None else None
    frames = read_frames(
        path, lambda _: chosen, backend=backend, look=(lambda: info) if info else None
    )
    return [zlib.crc32(frame.tobytes()) for frame in frames]


def checked(folder: Path, files: list[Path]) -> dict[str, IndexRow]:
    """What `tats data check` finds; the sound files are held against the bare loop."""
    (folder / "list.csv").write_text("".join(f"{path.name}\n" for path in files))
    rows = check_list(folder / "list.csv", jobs=2, limit_s=LIMIT_S).rows
    assert not [path for path, row in rows.items() if "takes over" in row.reason + row.notes]
    assert not [path for path, row in rows.items() if "crashes" in row.reason + row.notes]
    order = np.random.default_rng(0)
    for path, row in rows.items():
        if row.reason:
            continue
        truth = sequential(path)
        assert row.info is not None
        assert row.info.num_frames == len(truth), path
        chosen = order.permutation(len(truth)).tolist()
        exact = [reader for reader in installed() if reader not in row.notes]
        for backend in ("auto", "pyav", *exact):
            assert shown(path, chosen, backend, row) == [truth[i] for i in chosen], (path, backend)
            for index in chosen[:4]:
                assert shown(path, [index], backend, row) == [truth[index]], (path, backend)
    return rows


def test_every_kind_of_file_is_decoded_exactly_by_each_reader_that_passed_the_check(
    whole: list[Path],
) -> None:
    folder = whole[0].parent
    rows = checked(folder, whole)
    assert not [path for path, row in rows.items() if row.reason]
    for path in rows:
        if Path(path).stem != "turned":
            numbers = read_numbers(read_frames(path, lambda n: list(range(n))))
            first = 10 if path.endswith("early.mp4") else 0  # cut away by the edit list
            assert numbers == list(range(first, 40)), path
    open_index.cache_clear()
    by_index = {entry.path: entry.probe().reader for entry in read_list(folder / "list.csv")}
    assert by_index == {path: row.info.reader for path, row in rows.items() if row.info}


@pytest.mark.long  # 171 files, each decoded several times
@pytest.mark.parametrize("number", range(NUM_KINDS))
def test_file_that_was_cut_is_refused_or_exact_and_stalls_nothing(
    whole: list[Path], tmp_path: Path, number: int
) -> None:
    path, files = whole[number], []
    data = path.read_bytes()
    for tenth in range(1, 10):
        files.append(tmp_path / f"{path.stem}_{tenth}{path.suffix}")
        files[-1].write_bytes(data[: len(data) * tenth // 10])
    rows = checked(tmp_path, files)
    assert len(rows) == 9
    assert not [row.reason for row in rows.values() if "\n" in row.reason]
    for cut in map(str, files):  # as a run reads them that was never told of a check
        with suppress(VideoError):
            frames = read_frames(cut, lambda n: [0, n // 2, n - 1])
            assert {zlib.crc32(frame.tobytes()) for frame in frames} <= set(sequential(cut)), cut


_OPENINGS = """
import sys
from pathlib import Path
from tats_ray.data.decode import read_frames

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

path, backend = sys.argv[1:]
for number in range(2200):
    if number == 200:
        before = resident_mb()
    read_frames(path, lambda n: [n - 1, 3], backend=backend)
print(resident_mb() - before)
"""


@pytest.mark.long  # 2,200 openings each
@pytest.mark.parametrize("backend", ["pyav", *JUMPING])
def test_reader_leaks_less_than_20_mb_over_2000_openings(tmp_path: Path, backend: Backend) -> None:
    if backend in JUMPING and (missing := why_missing(backend)):
        pytest.skip(missing)
    write_video(tmp_path / "v.mp4", numbered_frames(16), 25, gop=4, num_b_frames=2)
    child = subprocess.run(
        [sys.executable, "-c", _OPENINGS, str(tmp_path / "v.mp4"), backend],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert float(child.stdout) < 20
