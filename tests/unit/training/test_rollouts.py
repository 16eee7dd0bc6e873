"""Rollouts made apart from training: a function of their number and the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tats_ray.config.load import parse_config
from tats_ray.core.types import Rollout
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tats_ray.models.zoo import build_mae, token_grid
from tats_ray.training.rollouts import RolloutMaker

VERSIONS = {"step": 8, "policy_version": 3, "mae_step": 6}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=5, num_val=1, num_frames=8, size=48, workers=1)


def maker(videos: SyntheticSet, **loop: Any) -> RolloutMaker:
    raw: dict[str, Any] = {
        "data": {
            "train_list": str(videos.train_list),
            "num_frames": 4,
            "image_size": 32,
            "stride": 1,
        },
        "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
        "sampler": {"mask_ratio": 0.75, "actor_init": "xavier"},
        "algorithm": {"name": "grpo", "group_size": 2},
        "loop": {"source": "workers", "mae_steps_per_update": 3, **loop},
        "optim": {"batch_size": 4},
        "env": {"reward": "error_reduction"},
        "cluster": {"num_workers": 2},
    }
    config = parse_config(raw)
    device = torch.device("cpu")
    entries = read_lists(config.data).train
    return RolloutMaker(config, entries, device=device)


def assert_equal(one: Rollout, other: Rollout) -> None:
    first, second = one.to_arrays(), other.to_arrays()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert (value == second[name]).all() if hasattr(value, "all") else value == second[name]


def test_rollout_does_not_depend_on_what_its_maker_made_before(videos: SyntheticSet) -> None:
    first, second = maker(videos), maker(videos)
    alone = first.make(2, 5, **VERSIONS)
    second.make(7, 0, **VERSIONS)
    assert_equal(alone, second.make(2, 5, **VERSIONS))
    other = second.make(2, 4, **VERSIONS)
    assert not torch.equal(alone.tokens, other.tokens)
    # Entry 2 of 3, column 1 of 2: where rank 1's rollout of the third step would stand.
    assert (alone.step, alone.rank, alone.mae_step, alone.mae_lag) == (10, 1, 6, 4)
    assert alone.num_clips == 2
    assert torch.equal(alone.tokens[0], alone.tokens[1])  # two masks of one clip
    assert not torch.equal(alone.visible_idx[0], alone.visible_idx[1])


def test_new_weights_change_what_is_seen_and_paid_and_nothing_is_remembered(
    videos: SyntheticSet,
) -> None:
    """The reward compares with random masks, which a scorer that never changes asks once only."""
    made = maker(videos)
    before = made.make(0, 0, **VERSIONS)
    config = made.config
    other = build_mae(config.model, token_grid(config.data, config.model), seed=9).state_dict()
    made.load("mae", other)
    after = made.make(0, 0, **VERSIONS)
    assert not torch.equal(before.tokens, after.tokens)
    fresh = maker(videos)
    fresh.load("mae", other)
    assert_equal(after, fresh.make(0, 0, **VERSIONS))
    assert not any(p.requires_grad for p in made.mae.parameters())


def test_fraction_and_half_precision_make_rollouts_smaller(videos: SyntheticSet) -> None:
    whole = maker(videos).make(0, 0, **VERSIONS)
    half = maker(videos, precision="bfloat16", rollout_fraction=0.5).make(0, 0, **VERSIONS)
    assert (len(whole.tokens), len(half.tokens)) == (4, 2)
    assert half.tokens.dtype == torch.bfloat16
    assert half.log_prob.dtype == half.reward.dtype == torch.float32
    rows = whole.tokens.nbytes // 4
    assert half.tokens.nbytes == 2 * rows // 2


def test_every_video_is_shown_once_before_any_is_shown_again(videos: SyntheticSet) -> None:
    made = maker(videos)
    epochs = [[made.clips(number).index.tolist() for number in (2 * e, 2 * e + 1)] for e in (0, 1)]
    for batches in epochs:  # five videos: two rollouts of two clips
        shown = [index for batch in batches for index in batch]
        assert len(set(shown)) == 4
    assert epochs[0] != epochs[1]
