"""From a configuration to lists, batches and the validation set, on three small videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.encode import write_video
from tats_ray.data.motion import write_motion
from tats_ray.evaluation.mask_evaluator import evaluator, validation_set
from tats_ray.models.zoo import token_grid
from tats_ray.training.pretrain_build import Batches


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    lines = []
    for label in range(5):
        frames = generator.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
        write_video(folder / f"{label}.mp4", frames, 25, "mpeg4")
        lines.append(f"{label}.mp4\t{label}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return parse_config(
        {
            "data": {
                "train_list": str(folder / "train.csv"),
                "val_list": str(folder / "train.csv"),
                "num_classes": 5,
                "num_frames": 4,
                "image_size": 32,
                "num_workers": 0,
            },
            "model": {"size": "tiny", "patch": 8},
            "optim": {"batch_size": 2},
            "eval": {"num_clips": 3},
        }
    )


def test_lists_are_read_and_checked_against_the_number_of_classes(config: RunConfig) -> None:
    lists = read_lists(config.data)
    assert [entry.label for entry in lists.train] == [0, 1, 2, 3, 4]
    assert lists.val == lists.train
    data = {**{f: getattr(config.data, f) for f in ("train_list",)}, "num_classes": 3}
    with pytest.raises(UsageError):
        read_lists(parse_config({"data": data}).data)
    without = parse_config({"data": {"train_list": config.data.train_list}})
    assert read_lists(without.data).val == []


def test_batches_from_the_middle_of_an_epoch_are_the_rest_of_the_whole_epoch(
    config: RunConfig,
) -> None:
    batches = Batches(config, read_lists(config.data).train)
    assert batches.steps_per_epoch == 2
    whole = list(batches(1, 0))
    rest = list(batches(1, 1))
    assert len(whole) == 2
    assert len(rest) == 1
    assert torch.equal(rest[0].pixels, whole[1].pixels)
    assert list(batches(1, 2)) == []
    keys = batches.keys(1, 1)
    assert [index for _, index in keys] == rest[0].index.tolist()
    assert {epoch for epoch, _ in keys} == {1}
    assert whole[0].pixels.shape == (2, 3, 4, 32, 32)


def test_ranks_share_an_epoch_without_sharing_a_clip(config: RunConfig) -> None:
    entries = read_lists(config.data).train
    parts = [Batches(config, entries, rank=rank, world_size=2) for rank in range(2)]
    seen = [index for part in parts for _, index in part.keys(0, 0)]
    assert len(seen) == len(set(seen)) == 4
    both = Batches(config, entries, num_slots=2)
    assert [index for _, index in both.keys(0, 0)] == seen
    assert [batch.index.tolist() for batch in both(0, 0)] == [seen[:2], seen[2:]]


def test_validation_set_marks_what_moves_only_when_it_is_known_for_every_clip(
    config: RunConfig,
) -> None:
    entries = read_lists(config.data).val
    grid = token_grid(config.data, config.model)
    for index, entry in enumerate(entries[:3]):
        unknown = validation_set(config, grid, entries)
        assert unknown.moving is None
        assert len(unknown.clips) == 3  # eval.num_clips of five
        motion = np.zeros((10, 32, 32), bool)
        motion[:, 8 * index : 8 * index + 8, :8] = True  # one patch of every slot
        write_motion(Path(entry.path), motion)
    known = validation_set(config, grid, entries).moving
    assert known is not None
    for index, row in enumerate(known):
        assert row.nonzero().flatten().tolist() == [4 * index, 16 + 4 * index]


def test_nothing_is_measured_without_a_validation_list(config: RunConfig) -> None:
    assert evaluator(config, []) is None
    found = evaluator(config, read_lists(config.data).val)
    assert found is not None
    assert found.num_visible == 3  # floor(32 x 0.1)
