from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tats_ray.config.finetune_schema import AugmentConfig, LabelledDataConfig
from tats_ray.data.labelled import LabelledClips
from tats_ray.data.manifest import read_list
from tats_ray.data.sampler import ClipSampler
from tats_ray.data.synthetic import SyntheticSet, synthesize

PLAIN = AugmentConfig(
    rand_ops=0, rand_magnitude=0.0, rand_std=0.0, min_area=1.0, flip=0.0, erase=0.0
)
ALL = AugmentConfig(rand_ops=2, rand_magnitude=7.0, rand_std=0.5, min_area=0.3, flip=0.5, erase=0.5)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("small_set")
    return synthesize(folder, num_train=3, num_val=1, num_frames=40, size=48, workers=1)


def clips(videos: SyntheticSet, how: AugmentConfig, *, seed: int = 0, **more: Any) -> LabelledClips:
    data = LabelledDataConfig(
        **{"num_frames": 4, "image_size": 32, "stride": 2, "min_frames": 1, **more}
    )
    return LabelledClips(read_list(videos.train_list), data, how, seed=seed)


def test_a_clip_is_a_function_of_seed_epoch_and_index_alone(small_set: SyntheticSet) -> None:
    dataset = clips(small_set, ALL)
    first = dataset[3, 1].pixels
    _ = dataset[0, 2]
    assert torch.equal(clips(small_set, ALL, cache_mb=50)[3, 1].pixels, first)
    others = [dataset[4, 1], clips(small_set, ALL, seed=1)[3, 1]]
    assert not any(torch.equal(other.pixels, first) for other in others)


def test_without_augmentation_it_is_the_resized_video_at_the_frames_of_the_method(
    small_set: SyntheticSet,
) -> None:
    found = clips(small_set, PLAIN)[0, 0]
    assert found.label == read_list(small_set.train_list)[0].label
    assert found.pixels.shape == (3, 4, 32, 32)
    mirrored = clips(small_set, replace(PLAIN, flip=1.0))[0, 0].pixels
    assert torch.equal(mirrored, found.pixels.flip(-1))


@pytest.mark.parametrize("sampling", ["dense", "segments"])
def test_frames_are_those_of_the_sampler(small_set: SyntheticSet, sampling: str) -> None:
    dataset = clips(small_set, PLAIN, sampling=sampling)
    seen = {tuple(dataset._choose(epoch, 0)(40)) for epoch in range(40)}
    assert len(seen) > 10
    for frames in seen:
        if sampling == "dense":
            assert frames[-1] - frames[0] == 7  # 4 x 2 frames
            assert all(0 <= at < 40 for at in frames)
        else:
            assert [at // 10 for at in frames] == [0, 1, 2, 3]


def test_copies_of_a_video_are_cut_differently_and_never_again_the_same() -> None:
    sampler = ClipSampler(num_clips=6, batch_size=2, repeats=2)
    keys = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [4, 4, 4]
        for batch in batches:
            assert [index for _, index in batch[:2]] == [index for _, index in batch[2:]]
        keys += [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys) == 36
