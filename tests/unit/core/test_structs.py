"""The structs that travel: Rollout across process borders, Reconstruction's loss."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from tats_ray.core.errors import CheckpointError, TatsError, UsageError, VideoError
from tats_ray.core.types import Reconstruction, Rollout


def rollout(seed: int = 0, *, clips: int = 2, dtype: torch.dtype = torch.float32) -> Rollout:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return Rollout(
        tokens=noise(clips, 6, 4).to(dtype),
        visible_idx=torch.stack([torch.randperm(6, generator=generator)[:2] for _ in range(clips)]),
        log_prob=noise(clips, 6).log_softmax(1),
        value=noise(clips),
        reward=noise(clips, 6),
        policy_version=3,
        step=10 + seed,
        rank=seed,
    )


def assert_same(one: Rollout, other: Rollout) -> None:
    for f in fields(Rollout):
        left, right = getattr(one, f.name), getattr(other, f.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype, f.name
            assert torch.equal(left, right), f.name
        else:
            assert left == right, f.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rollout_survives_the_way_through_numpy_bit_for_bit(dtype: torch.dtype) -> None:
    sent = rollout(dtype=dtype)
    arrays = sent.to_arrays()
    tensors = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    assert set(tensors) == {"tokens", "visible_idx", "log_prob", "value", "reward"}
    assert all(value.flags["C_CONTIGUOUS"] for value in tensors.values())
    assert sum(value.nbytes for value in tensors.values()) == sent.num_bytes
    assert_same(Rollout.from_arrays(arrays), sent)


def test_rollout_from_read_only_arrays_owns_memory_that_can_be_written() -> None:
    arrays: dict[str, Any] = rollout().to_arrays()
    for value in arrays.values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    received = Rollout.from_arrays(arrays)
    received.tokens.zero_()
    assert arrays["tokens"].any()


def test_head_of_a_rollout_keeps_whole_groups_of_masks() -> None:
    whole = replace(rollout(clips=6), masks_per_clip=3)
    assert (whole.num_clips, whole.head(1).num_clips) == (2, 1)
    for name in ("tokens", "visible_idx", "log_prob", "value", "reward"):
        assert torch.equal(getattr(whole.head(1), name), getattr(whole, name)[:3])
    assert Rollout.from_arrays(whole.head(1).to_arrays()).masks_per_clip == 3
    assert Rollout.concatenate([whole, whole.head(1)]).num_clips == 3


def test_rollout_whose_rows_are_no_whole_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="4 rows cannot be grouped by 3 masks"):
        replace(rollout(clips=4), masks_per_clip=3)


def test_rollout_with_a_gradient_is_packed_without_it() -> None:
    sent = replace(rollout(), value=torch.ones(2, requires_grad=True))
    assert not Rollout.from_arrays(sent.to_arrays()).value.requires_grad


def test_concatenated_rollouts_hold_all_clips_under_the_first_stamp() -> None:
    parts = [rollout(0), rollout(1, clips=3)]
    whole = Rollout.concatenate(parts)
    assert len(whole.tokens) == len(whole.reward) == 5
    assert torch.equal(whole.visible_idx[2:], parts[1].visible_idx)
    assert torch.equal(whole.log_prob[:2], parts[0].log_prob)
    assert (whole.step, whole.rank) == (10, 0)


def test_reconstruction_loss_is_the_mean_over_clips_and_hidden_tokens() -> None:
    error = torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, 6.0]])
    found = Reconstruction(torch.zeros(2, 2, 1), torch.tensor([[1, 2], [0, 2]]), error)
    assert found.loss.item() == (1 + 3 + 2 + 6) / 4


def test_video_error_keeps_its_path_and_reason_across_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a/b.mp4", "no frames")))
    assert (error.path, error.reason, str(error)) == ("a/b.mp4", "no frames", "a/b.mp4: no frames")


def test_every_error_that_a_user_can_act_on_is_a_tats_error() -> None:
    assert issubclass(CheckpointError, UsageError)
    assert issubclass(UsageError, TatsError)
    assert issubclass(UsageError, ValueError)  # so that pydantic reports it as a bad value
