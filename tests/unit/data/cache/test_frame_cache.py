"""Clips of a cache against clips of the videos: the same frames and crops, but for the JPEG."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import numbered_frames, read_numbers, write_pictures
from torch.utils.data import DataLoader

from tats_ray.config.finetune_schema import AugmentConfig, LabelledDataConfig
from tats_ray.config.schema import DataConfig
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.grid import TokenGrid
from tats_ray.data.cache.frame_cache import FrameCache
from tats_ray.data.cache.make_cache import make_cache
from tats_ray.data.cache.shards import CacheSettings
from tats_ray.data.clip_lists import cache_in_words, clip_dataset, read_lists
from tats_ray.data.dataset import Augment, Clip, ClipDataset, collate
from tats_ray.data.encode import write_video
from tats_ray.data.labelled import LabelledClips
from tats_ray.data.manifest import read_list
from tats_ray.data.motion import write_motion
from tats_ray.data.sampler import ClipSampler

KEYS = [(epoch, index) for epoch in (0, 3) for index in range(4)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of four sound videos, one that breaks off, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", numbered_frames(30), num_b_frames=2)
    write_video(folder / "b, b.avi", numbered_frames(30, 50), codec="mpeg4", num_b_frames=2)
    write_pictures(folder / "c", 30)
    wide = np.pad(numbered_frames(30, 90), ((0, 0), (0, 0), (30, 36), (0, 0)))
    write_video(folder / "d.mkv", wide)
    write_video(folder / "whole.avi", numbered_frames(60), codec="mpeg4", gop=1)
    whole = (folder / "whole.avi").read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (folder / "none.mp4").write_text("not a film\n" * 99)
    names = ["a.mp4", '"b, b.avi"', "c", "d.mkv", "cut.avi", "none.mp4"]
    (folder / "train.csv").write_text("".join(f"{n}\t{i}\n" for i, n in enumerate(names)))
    return folder / "train.csv"


@pytest.fixture(scope="module")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their frames, 48 px of 64."""
    out = tmp_path_factory.mktemp("caches") / "cache"
    make_cache(videos, out, CacheSettings(48, 95), jobs=2)
    return out


def _dataset(videos: Path, cache: Path | None, **options: Any) -> ClipDataset:
    sizes: dict[str, Any] = {"num_frames": 4, "image_size": 48, "stride": 2, "seed": 3}
    stored = FrameCache(cache) if cache else None
    return ClipDataset(entries=read_list(videos), cache=stored, **{**sizes, **options})


def _distance(a: Clip, b: Clip) -> float:
    return float((a.pixels.float() - b.pixels.float()).abs().mean())


@pytest.mark.parametrize("augment", ["multi_scale_crop", "random_resized_crop", "center"])
def test_clips_show_the_same_frames_and_crops_as_the_videos(
    videos: Path, folder: Path, augment: Augment
) -> None:
    plain = _dataset(videos, None, augment=augment)
    stored = _dataset(videos, folder, augment=augment)
    pairs = [(stored[key], plain[key]) for key in KEYS]
    assert [(a.label, a.index) for a, _ in pairs] == [(b.label, b.index) for _, b in pairs]
    near = [_distance(a, b) for a, b in pairs]
    assert max(near) < 12
    if augment != "center":  # another crop or start is much further away
        others = [_distance(stored[key], plain[key[0] + 1, key[1]]) for key in KEYS]
        assert sum(near) < sum(others) / 3


def test_frames_are_the_numbers_that_were_asked_for(videos: Path, folder: Path) -> None:
    cache, entries = FrameCache(folder), read_list(videos)
    for index, offset in ((0, 0), (1, 50), (2, 0)):
        clip = cache.read(entries[index], lambda total: [7, 3, total - 1, 7])
        assert read_numbers(clip.frames()) == [offset + n for n in (7, 3, 29, 7)]
        assert clip.frames().shape == (4, 48, 48, 3)


def test_broken_videos_are_replaced_for_the_reasons_of_the_videos(
    videos: Path, folder: Path
) -> None:
    plain, stored = _dataset(videos, None), _dataset(videos, folder)
    for index in (4, 5):
        a, b = plain[0, index], stored[0, index]
        assert (a.index, a.unreadable) == (b.index, b.unreadable)
    assert list(stored[0, 5].unreadable) == [str(videos.parent / "none.mp4")]
    # The first half of the file that was cut off is there, in both.
    assert _dataset(videos, None, augment="center")[0, 4].index == 4


def test_videos_are_not_opened(videos: Path, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(videos.parent, tmp_path / "elsewhere", copy_function=shutil.copy2)
    for path in copy.glob("*.mp4"):
        kept = path.stat()
        path.write_bytes(bytes(kept.st_size))
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    here, there = _dataset(videos, folder), _dataset(copy / "train.csv", folder)
    assert torch.equal(here[0, 0].pixels, there[0, 0].pixels)


def test_number_of_loader_processes_changes_no_pixel(videos: Path, folder: Path) -> None:
    def epoch(workers: int) -> list[torch.Tensor]:
        sampler = ClipSampler(num_clips=6, batch_size=3, seed=1)
        loader: DataLoader[Clip] = DataLoader(
            _dataset(videos, folder), batch_sampler=sampler, collate_fn=collate, num_workers=workers
        )
        return [batch.pixels for batch in loader]

    for one, other in zip(epoch(0), epoch(2), strict=True):
        assert torch.equal(one, other)


def test_copy_in_another_process_reads_the_same_files(videos: Path, folder: Path) -> None:
    dataset = _dataset(videos, folder)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1, 0].pixels, dataset[1, 0].pixels)


def test_true_motion_is_that_of_the_videos(videos: Path, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(videos.parent, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "one.csv").write_text("a.mp4\n")
    write_motion(copy / "a.mp4", np.random.default_rng(0).random((30, 64, 64)) < 0.3)
    grid = TokenGrid(num_frames=4, image_size=48, tubelet=2, patch=16)
    plain, stored = (
        _dataset(copy / "one.csv", cache, motion_grid=grid)[5, 0].motion for cache in (None, folder)
    )
    assert plain is not None
    assert stored is not None
    assert torch.equal(plain, stored)


@pytest.mark.parametrize("rand_ops", [0, 2])
def test_labelled_clips_are_augmented_as_those_of_the_videos(
    videos: Path, folder: Path, rand_ops: int
) -> None:
    def clips(cache: str) -> LabelledClips:
        data = LabelledDataConfig(num_frames=4, image_size=48, stride=2, cache=cache)
        how = AugmentConfig(rand_ops=rand_ops, erase=0)
        return LabelledClips(read_list(videos), data, how, seed=2)

    plain, stored = clips(""), clips(str(folder))
    distances = [_distance(stored[key], plain[key]) for key in KEYS]
    others = [_distance(stored[key], plain[key[0] + 1, key[1]]) for key in KEYS]
    assert np.median(distances) < np.median(others) / 3


def _data(videos: Path, folder: object) -> DataConfig:
    return DataConfig(train_list=str(videos), cache=str(folder), num_frames=4, image_size=48)


def test_configuration_trains_from_the_cache_and_measures_on_videos(
    videos: Path, folder: Path
) -> None:
    data = _data(videos, folder)
    entries = read_lists(data).train
    assert torch.equal(
        clip_dataset(data, entries, seed=3)[0, 0].pixels,
        _dataset(videos, folder, stride=data.stride)[0, 0].pixels,
    )
    measured = clip_dataset(data, entries, is_centered=True)[0, 0]
    assert torch.equal(
        measured.pixels, _dataset(videos, None, augment="center", stride=2)[0, 0].pixels
    )
    assert cache_in_words(data) == ""
    assert "enlarged to data.image_size 64" in cache_in_words(
        DataConfig(cache=str(folder), image_size=64)
    )


def test_list_that_the_cache_does_not_hold_is_refused(
    videos: Path, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(videos.parent, tmp_path / "copy", copy_function=shutil.copy2)
    os.utime(copy / "c", ns=(1, (videos.parent / "c").stat().st_mtime_ns))
    read_lists(_data(copy / "train.csv", folder))
    os.utime(copy / "a.mp4", (1, 1))
    with pytest.raises(UsageError, match=r"1 of the 6 videos .* changed after .* data cache"):
        read_lists(_data(copy / "train.csv", folder))
    shutil.copy2(videos.parent / "a.mp4", copy / "a.mp4")
    shutil.copy2(copy / "d.mkv", copy / "new.mkv")
    with (copy / "train.csv").open("a") as file:
        file.write("new.mkv\t0\n")
    with pytest.raises(UsageError, match=r"1 of the 7 videos .* are not in .*--short-side 48"):
        read_lists(_data(copy / "train.csv", folder))


def test_file_that_changes_during_a_run_costs_its_clips(
    videos: Path, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(videos.parent, tmp_path / "copy", copy_function=shutil.copy2)
    dataset = _dataset(copy / "train.csv", folder)
    with (copy / "a.mp4").open("ab") as file:
        file.write(b"more")
    (copy / "b, b.avi").unlink()
    clip = dataset[0, 0]
    assert clip.index == 2
    assert [Path(path).name for path in clip.unreadable] == ["a.mp4", "b, b.avi"]


def test_what_is_no_cache_or_a_damaged_one_is_named(
    videos: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is no cache"):
        FrameCache(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="something other than a cache"):
        FrameCache(videos.parent)
    cut = shutil.copytree(folder, tmp_path / "cut")
    dataset = _dataset(videos, cut)
    stored = FrameCache(folder).find(dataset.entries[0])
    assert stored is not None
    shard = cut / stored.shard  # others may be empty: who stores which video is chance
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(UsageError, match=rf"damaged \({shard.name} is cut off\)"):
        FrameCache(cut)
    shard.unlink()
    with pytest.raises(VideoError, match="cannot be read from"):
        dataset._stored.read(dataset.entries[0], lambda _: [0])  # type: ignore[union-attr]
