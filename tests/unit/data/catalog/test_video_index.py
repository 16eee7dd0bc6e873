from __future__ import annotations

import os
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import numbered_frames
from torch.utils.data import DataLoader

from tats_ray.core.errors import VideoError
from tats_ray.data import decode
from tats_ray.data.catalog.video_index import IndexRow, VideoIndex, open_index
from tats_ray.data.dataset import ClipDataset, collate
from tats_ray.data.decode import VideoInfo
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.readers.jumping import label_of
from tats_ray.data.sampler import ClipSampler

NUM_VIDEOS = 6


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A list of six videos, H.264 and MPEG-4 in turns, names with commas, quotes and spaces."""
    lines = []
    for n in range(NUM_VIDEOS):
        name = f'v {n}, "x" é.{"avi" if n % 2 else "mp4"}'
        codec = "mpeg4" if n % 2 else "h264"
        write_video(tmp_path / name, numbered_frames(20 + n), 25, codec)
        lines.append(f"{name}\t{n}\n")
    path = tmp_path / "train.csv"
    path.write_text("".join(lines))
    return path


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened to be counted."""
    names: list[str] = []
    original = decode._probe

    def counting(path: str, mtime_ns: int, size: int) -> VideoInfo:
        names.append(Path(path).name)
        return original.__wrapped__(path, mtime_ns, size)

    monkeypatch.setattr(decode, "_probe", counting)
    return names


def entries_anew(path: Path) -> list[VideoEntry]:
    """As another process reads the list."""
    open_index.cache_clear()
    return read_list(path)


def test_another_process_opens_no_file_to_count_it(videos: Path, looked_at: list[str]) -> None:
    first = [entry.probe() for entry in entries_anew(videos)]
    assert [info.num_frames for info in first] == [20 + n for n in range(NUM_VIDEOS)]
    assert len(looked_at) == NUM_VIDEOS
    lines = videos.with_suffix(".index").read_text().splitlines()
    assert (
        lines[0]
        == "path,size,time,frames,fps,width,height,codec,reader,checked,reason,notes,compared,sum"
    )
    assert len(lines) == 1 + NUM_VIDEOS
    assert ",20,25.0,64,64,h264,pyav,no,,,," in lines[1]
    assert [entry.probe() for entry in entries_anew(videos)] == first
    assert len(looked_at) == NUM_VIDEOS


def test_two_processes_at_a_time_read_what_the_other_adds(
    videos: Path, looked_at: list[str]
) -> None:
    one = VideoIndex(videos.with_suffix(".index"), videos.parent)
    other = VideoIndex(videos.with_suffix(".index"), videos.parent)
    paths = [entry.path for entry in read_list(videos)]
    for number, path in enumerate([*paths, *paths]):
        (one, other)[number % 2].probe(path)
    for path in paths:
        assert one.probe(path) == other.probe(path)
    assert len(looked_at) == NUM_VIDEOS


def test_loader_processes_fill_the_index_on_the_way_and_clips_stay_the_same(
    videos: Path, tmp_path: Path
) -> None:
    def clips() -> dict[int, torch.Tensor]:
        dataset = ClipDataset(entries=entries_anew(videos), num_frames=4, image_size=32)
        sampler = ClipSampler(num_clips=NUM_VIDEOS, batch_size=2)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=2)
        return {
            int(index): pixels
            for batch in loader
            for index, pixels in zip(batch.index, batch.pixels, strict=True)
        }

    before = clips()
    lines = videos.with_suffix(".index").read_text().splitlines()
    assert len(lines) - lines.count(lines[0]) == NUM_VIDEOS
    after = clips()
    assert videos.with_suffix(".index").read_text().splitlines() == lines
    assert all(torch.equal(before[index], after[index]) for index in range(NUM_VIDEOS))


def test_file_that_has_changed_is_looked_at_again(videos: Path, looked_at: list[str]) -> None:
    entry = entries_anew(videos)[0]
    entry.probe()
    write_video(entry.path, numbered_frames(7))
    assert entry.probe().num_frames == 7
    status = Path(entry.path).stat()
    os.utime(entry.path, ns=(0, status.st_mtime_ns + 1))
    assert entry.probe().num_frames == 7
    assert len(looked_at) == 3
    assert entries_anew(videos)[0].probe().num_frames == 7
    assert len(looked_at) == 3


def test_file_that_changes_during_a_run_loses_its_reader_and_one_that_vanishes_is_told(
    videos: Path,
) -> None:
    entry = entries_anew(videos)[0]
    assert entry.index is not None
    info = replace(entry.probe(), reader=label_of("decord"))
    entry.index.add(entry.path, IndexRow(info, True, compared=info.reader))
    assert entries_anew(videos)[0].probe().reader == label_of("decord")
    write_video(entry.path, numbered_frames(30))  # it grows
    assert (entry.probe().num_frames, entry.probe().reader) == (30, "")
    assert entry.index.find(entry.path) == IndexRow(entry.probe())
    Path(entry.path).unlink()
    with pytest.raises(VideoError, match=r"cannot be opened \(No such file or directory\)"):
        entry.probe()


def test_folder_that_was_moved_keeps_its_index(
    videos: Path, tmp_path: Path, looked_at: list[str]
) -> None:
    for entry in entries_anew(videos):
        entry.probe()
    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    tmp_path.rename(moved)
    assert len([entry.probe() for entry in entries_anew(moved / "train.csv")]) == NUM_VIDEOS
    assert len(looked_at) == NUM_VIDEOS


@pytest.mark.parametrize("damage", ["cut", "changed", "mixed", "binary"])
def test_damaged_line_is_looked_at_again_and_the_rest_counts(
    videos: Path, looked_at: list[str], damage: str
) -> None:
    known = [entry.probe() for entry in entries_anew(videos)]
    path = videos.with_suffix(".index")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-1] = {
        "cut": lines[-1][:30],
        "changed": lines[-1].replace(b",25,", b",26,"),
        "mixed": lines[-1][:20] + lines[-2][20:],
        "binary": b"\xff\x00" * 40,
    }[damage]
    path.write_bytes(b"".join(lines))
    assert [entry.probe() for entry in entries_anew(videos)] == known
    assert len(looked_at) == NUM_VIDEOS + 1
    assert [entry.probe() for entry in entries_anew(videos)] == known
    assert len(looked_at) == NUM_VIDEOS + 1


def test_storage_that_takes_no_index_costs_nothing_but_time(
    videos: Path, looked_at: list[str]
) -> None:
    videos.with_suffix(".index").mkdir()
    entry = entries_anew(videos)[0]
    assert [entry.probe().num_frames, entry.probe().num_frames] == [20, 20]
    assert len(looked_at) == 1


def test_copy_for_another_process_is_small_and_reads_the_same_file(videos: Path) -> None:
    entries = entries_anew(videos)
    info = entries[0].probe()
    sent = pickle.dumps(entries)
    open_index.cache_clear()
    received = pickle.loads(sent)
    assert received == entries
    assert received[0].index is received[1].index is not entries[0].index
    assert received[0].index.find(received[0].path) == IndexRow(info)


def test_file_that_could_not_be_opened_is_refused_with_the_reason(videos: Path) -> None:
    entry = entries_anew(videos)[0]
    assert entry.index is not None
    entry.index.add(entry.path, IndexRow(None, True, 'decodes for over 60 s, "twice"'))
    with pytest.raises(VideoError, match='decodes for over 60 s, "twice"'):
        entries_anew(videos)[0].probe()


def test_index_of_ucf101s_size_loads_in_a_moment(tmp_path: Path) -> None:
    """13,320 lines; measured 0.15 s on a quiet core, and half the bound is left to busy ones."""
    index = VideoIndex(tmp_path / "train.index", tmp_path)
    (tmp_path / "v.avi").touch()
    index.add(str(tmp_path / "v.avi"), IndexRow(VideoInfo(99, 320, 240, 25.0, "mpeg4")))
    header, line, _ = index.path.read_text().split("\n")
    index.path.write_text(header + f"\n{line}" * 13320 + "\n")
    began = time.process_time()
    assert VideoIndex(index.path, tmp_path).find(str(tmp_path / "v.avi")) is not None
    assert time.process_time() - began < 1
