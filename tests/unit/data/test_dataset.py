from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_numbers
from torch.utils.data import DataLoader

from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.grid import TokenGrid
from tats_ray.data import decode
from tats_ray.data.dataset import Augment, Clip, ClipBatch, ClipDataset, collate
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import write_motion
from tats_ray.data.sampler import ClipSampler

KEYS = [(epoch, index) for epoch in (0, 1, 7) for index in range(6)]


def _dataset(entries: list[VideoEntry], **options: Any) -> ClipDataset:
    sizes: dict[str, Any] = {"num_frames": 8, "image_size": 48, "stride": 2, "seed": 3}
    return ClipDataset(entries=entries, **{**sizes, **options})


def _numbers(clip: Clip) -> list[int]:
    return read_numbers(clip.pixels.permute(1, 2, 3, 0).numpy())


def _is_equal(a: Clip, b: Clip) -> bool:
    same = (a.label, a.index, a.is_replaced) == (b.label, b.index, b.is_replaced)
    return same and torch.equal(a.pixels, b.pixels)


@pytest.mark.parametrize("augment", ["multi_scale_crop", "random_resized_crop", "center"])
def test_clip_depends_on_its_key_alone(numbered_videos: list[VideoEntry], augment: Augment) -> None:
    first, second = (_dataset(numbered_videos, augment=augment) for _ in range(2))
    ahead = {key: first[key] for key in KEYS}
    for key in reversed(KEYS):
        assert _is_equal(second[key], ahead[key])
        assert ahead[key].pixels.shape == (3, 8, 48, 48)
        assert ahead[key].pixels.dtype == torch.uint8
        assert (ahead[key].label, ahead[key].index) == (key[1], key[1])


@pytest.mark.parametrize("augment", ["multi_scale_crop", "random_resized_crop"])
def test_augmented_clip_changes_with_epoch_and_seed(
    numbered_videos: list[VideoEntry], augment: Augment
) -> None:
    dataset = _dataset(numbered_videos, augment=augment)
    other = _dataset(numbered_videos, augment=augment, seed=4)
    for index in range(6):
        assert not torch.equal(dataset[0, index].pixels, dataset[1, index].pixels)
        assert not torch.equal(dataset[0, index].pixels, other[0, index].pixels)


@pytest.mark.parametrize("augment", ["multi_scale_crop", "random_resized_crop"])
def test_crop_changes_with_the_epoch_where_the_frames_cannot(
    numbered_videos: list[VideoEntry], augment: Augment
) -> None:
    dataset = _dataset(numbered_videos, augment=augment, num_frames=40, stride=1)
    clips = {dataset[epoch, 0].pixels.numpy().tobytes() for epoch in range(5)}
    assert len(clips) >= 4


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
def test_centred_clip_shows_the_middle_frames_in_every_epoch(
    numbered_videos: list[VideoEntry], backend: str
) -> None:
    dataset = _dataset(numbered_videos, augment="center", backend=backend)
    for epoch in (0, 5):
        for index in (0, 2, 4):
            start = 40 * index + (40 - 16) // 2
            expected = [number % 256 for number in range(start, start + 16, 2)]
            assert _numbers(dataset[epoch, index]) == expected


@pytest.mark.parametrize("cache_mb", [0.3, 0.6, 2, 100])
def test_cache_of_any_size_changes_no_clip(
    numbered_videos: list[VideoEntry], cache_mb: float, tmp_path: Path
) -> None:
    # A video is 0.49 MB, so that these hold none, one, four and all; the damaged one is not kept.
    whole = Path(numbered_videos[1].path).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    entries = [*numbered_videos, VideoEntry(str(cut), 6)]
    plain, cached = _dataset(entries), _dataset(entries, cache_mb=cache_mb)
    for key in [*KEYS, (0, 6), (1, 6), *KEYS[:6]]:
        assert _is_equal(plain[key], cached[key])
        assert cached._videos._num_bytes <= cache_mb * 1e6
    assert len(cached._videos._kept) == {0.3: 0, 0.6: 1, 2: 4, 100: 6}[cache_mb]


def test_cache_changes_no_clip_of_a_video_that_is_shorter_than_it_claims(
    numbered_videos: list[VideoEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decode._probe
    monkeypatch.setattr(decode, "_probe", lambda *file: replace(original(*file), num_frames=48))
    plain, cached = (_dataset(numbered_videos[1:2], cache_mb=size) for size in (0, 10))
    for epoch in range(30):
        assert _is_equal(plain[epoch, 0], cached[epoch, 0])
    assert cached._videos._kept[numbered_videos[1].path][0] == 48


def test_cached_video_is_decoded_once(
    numbered_videos: list[VideoEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tats_ray.data import dataset as module

    paths = []

    def counting(path: str, *args: Any, **options: Any) -> np.ndarray:
        paths.append(path)
        return original(path, *args, **options)

    original = module.read_frames
    monkeypatch.setattr(module, "read_frames", counting)
    dataset = _dataset(numbered_videos, cache_mb=100)
    for key in KEYS:
        dataset[key]
    assert sorted(paths) == sorted(entry.path for entry in numbered_videos)
    assert len(pickle.dumps(dataset)) < 10_000  # its memory stays behind


def test_unreadable_video_is_replaced_by_the_next_and_marked(
    numbered_videos: list[VideoEntry], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no film")
    entries = [*numbered_videos[:2], VideoEntry(str(bad), 5), VideoEntry("gone.mp4", 5)]
    dataset = _dataset(entries)
    for epoch in range(3):
        clip, stand_in = dataset[epoch, 2], dataset[epoch, 0]
        assert (clip.index, clip.label, clip.is_replaced) == (0, 0, True)
        assert torch.equal(clip.pixels, stand_in.pixels)
        assert not stand_in.is_replaced
    batch = collate([dataset[0, index] for index in range(4)])
    assert batch.num_replaced == 2
    assert batch.index.tolist() == [0, 1, 0, 0]
    assert list(batch.unreadable) == [str(bad), "gone.mp4"]
    assert "No such file" in batch.unreadable["gone.mp4"]


def test_list_without_a_readable_video_is_a_video_error_that_names_the_first() -> None:
    dataset = _dataset([VideoEntry(f"gone{i}.mp4", None) for i in range(20)])
    with pytest.raises(
        VideoError, match=r"gone18.mp4: .* and the next 7 of the list cannot be read either"
    ):
        dataset[0, 18]
    with pytest.raises(VideoError, match=r"^alone.mp4: .*\(No such file or directory\)$"):
        _dataset([VideoEntry("alone.mp4", None)])[0, 0]


def test_list_without_labels_gives_minus_one(numbered_videos: list[VideoEntry]) -> None:
    dataset = _dataset([VideoEntry(numbered_videos[0].path, None)])
    assert dataset[0, 0].label == -1


def test_loader_in_another_process_gives_the_same_batches(
    numbered_videos: list[VideoEntry],
) -> None:
    dataset = _dataset(numbered_videos, cache_mb=1)
    sampler = ClipSampler(num_clips=6, batch_size=3, epoch=2)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    for keys, batch in zip(sampler, loader, strict=True):
        assert isinstance(batch, ClipBatch)
        assert batch.pixels.shape == (3, 3, 8, 48, 48)
        assert batch.index.tolist() == batch.label.tolist() == [index for _, index in keys]
        assert torch.equal(batch.pixels, torch.stack([dataset[key].pixels for key in keys]))


@pytest.mark.parametrize("is_upright", [False, True])
def test_true_motion_lies_on_the_pixels_that_are_shown(tmp_path: Path, is_upright: bool) -> None:
    # A white square runs over black; its motion must cover it after the cut and the resize.
    motion = np.zeros((40, 64, 96), bool)
    for frame in range(40):
        motion[frame, 20:36, 10 + 2 * frame % 64 : 26 + 2 * frame % 64] = True
    if is_upright:
        motion = motion.swapaxes(1, 2)
    path = tmp_path / "v.mp4"
    write_video(path, np.repeat(motion[..., None], 3, -1).astype(np.uint8) * 255)
    write_motion(path, motion)
    dataset = _dataset([VideoEntry(str(path), 0)], augment="center", image_size=32)
    truth = dataset.motion(0)
    assert truth is not None
    shown = dataset[0, 0].pixels[0].numpy() > 127
    assert truth.shape == shown.shape
    assert shown.mean() > 0.04
    assert (truth == shown).mean() > 0.995


@pytest.mark.parametrize("augment", ["multi_scale_crop", "random_resized_crop"])
def test_motion_of_a_training_clip_goes_through_the_same_frames_crop_and_flip(
    tmp_path: Path, augment: Any
) -> None:
    motion = np.zeros((40, 64, 96), bool)
    for frame in range(40):
        motion[frame, 20:36, 10 + 2 * frame % 64 : 26 + 2 * frame % 64] = True
    path = tmp_path / "v.mp4"
    write_video(path, np.repeat(motion[..., None], 3, -1).astype(np.uint8) * 255)
    write_motion(path, motion)
    grid = TokenGrid(num_frames=8, image_size=32, patch=8)
    dataset = _dataset([VideoEntry(str(path), 0)], augment=augment, image_size=32, motion_grid=grid)
    shown = []
    for epoch in range(6):
        clip = dataset[epoch, 0]
        bright = (clip.pixels[0].numpy() > 127).astype(np.float32)
        expected = bright.reshape(4, 2, 4, 8, 4, 8).mean((1, 3, 5)).reshape(-1)
        assert clip.motion is not None
        assert np.abs(clip.motion.numpy() - expected).max() < 0.15  # edges of the square
        assert np.abs(clip.motion.numpy() - expected).mean() < 0.01
        shown.append(tuple(clip.motion.tolist()))
    assert len(set(shown)) > 3
    batch = collate([dataset[0, 0], dataset[1, 0]])
    assert batch.motion is not None
    assert batch.motion.shape == (2, 64)


def test_clip_without_the_motion_that_was_asked_for_names_the_file(
    numbered_videos: list[VideoEntry],
) -> None:
    grid = TokenGrid(num_frames=8, image_size=48, patch=16)
    with pytest.raises(UsageError, match=r"has no .*\.motion\.npz beside it"):
        _dataset(numbered_videos, motion_grid=grid)[0, 0]


def test_true_motion_is_none_without_a_file_and_refused_under_augmentation(
    numbered_videos: list[VideoEntry],
) -> None:
    assert _dataset(numbered_videos, augment="center").motion(0) is None
    with pytest.raises(UsageError, match="center"):
        _dataset(numbered_videos).motion(0)


@pytest.mark.parametrize("options", [{"entries": []}, {"num_frames": 0}, {"stride": 0}])
def test_impossible_data_set_is_refused(
    numbered_videos: list[VideoEntry], options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="cannot cut"):
        _dataset(**{"entries": numbered_videos, **options})


def test_index_outside_the_list_is_an_index_error(numbered_videos: list[VideoEntry]) -> None:
    with pytest.raises(IndexError):
        _dataset(numbered_videos)[0, 6]


def test_video_of_too_few_frames_is_refused_by_name_and_number(tmp_path: Path) -> None:
    video = tmp_path / "three.mp4"
    write_video(video, np.zeros((3, 32, 32, 3), np.uint8))
    entries = [VideoEntry(str(video), None)]
    assert _dataset(entries, min_frames=3)[0, 0].pixels.shape == (3, 8, 48, 48)
    with pytest.raises(VideoError, match=r"three\.mp4: has 3 frames, fewer than .* 4"):
        _dataset(entries, min_frames=4)[0, 0]


def test_whatever_a_file_raises_costs_one_clip_and_not_the_run(
    numbered_videos: list[VideoEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of another size is one such fault, a codec's own exception another."""
    original = decode.read_frames

    def read(path: str, choose: Any, **how: Any) -> Any:
        if path == numbered_videos[2].path:
            raise ZeroDivisionError("of a decoder")
        return original(path, choose, **how)

    monkeypatch.setattr("tats_ray.data.dataset.read_frames", read)
    clip = _dataset(numbered_videos)[0, 2]
    assert (clip.is_replaced, clip.index) == (True, 3)
    with pytest.raises(VideoError, match=r"cannot be used \(of a decoder\)"):
        _dataset(numbered_videos[2:3])[0, 0]


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_clips_of_one_opening_are_those_of_their_keys(
    numbered_videos: list[VideoEntry], backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counting(path: str, *rest: Any, **named: Any) -> np.ndarray:
        opened.append(path)
        return decode.read_frames(path, *rest, **named)

    dataset = _dataset(numbered_videos, backend=backend)
    keys = [(0, 1), (1, 1), (2, 1), (0, 0), (5, 2), (4, 2), (0, 1)]
    expected = [dataset[key] for key in keys]
    monkeypatch.setattr("tats_ray.data.dataset.read_frames", counting)
    found = dataset.__getitems__(keys)
    assert all(_is_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [Path(path).stem for path in opened] == ["v1", "v0", "v2", "v1"]


def test_damage_costs_only_those_clips_of_an_opening_that_it_hits(
    numbered_videos: list[VideoEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(path: str, choose: Any, **named: Any) -> np.ndarray:
        if path == numbered_videos[1].path and max(choose(40)) > 30:
            raise VideoError(path, "breaks")
        return decode.read_frames(path, choose, **named)

    monkeypatch.setattr("tats_ray.data.dataset.read_frames", damaged)
    dataset = _dataset(numbered_videos)
    clips = dataset.__getitems__([(epoch, 1) for epoch in range(8)])
    assert {clip.index for clip in clips} == {1, 2}
    assert [clip.index for clip in clips] == [dataset[epoch, 1].index for epoch in range(8)]


def test_loader_fetches_several_clips_of_an_opened_video(numbered_videos: list[VideoEntry]) -> None:
    dataset = _dataset(numbered_videos)
    sampler = ClipSampler(num_clips=6, batch_size=4, seed=1, clips_per_open=2)
    loader: DataLoader[Clip] = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    for batch, keys in zip(loader, sampler, strict=True):
        expected = torch.stack([dataset[key].pixels for key in keys])
        assert torch.equal(batch.pixels, expected)
