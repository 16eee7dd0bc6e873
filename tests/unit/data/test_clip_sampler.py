from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.core.errors import UsageError
from tats_ray.data.sampler import ClipSampler


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 40), st.integers(0, 5))
def test_ranks_share_each_global_batch_and_no_clip_comes_twice(
    world_size: int, batch_size: int, extra: int, epoch: int
) -> None:
    num_clips = batch_size * world_size + extra
    alone = ClipSampler(num_clips=num_clips, batch_size=batch_size * world_size, epoch=epoch)
    ranks = [
        ClipSampler(
            num_clips=num_clips,
            batch_size=batch_size,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    assert (
        {len(list(rank)) for rank in ranks}
        == {len(alone)}
        == {num_clips // (batch_size * world_size)}
    )
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert [key for part in parts for key in part] == whole
    keys = [key for batch in alone for key in batch]
    assert {key[0] for key in keys} == {epoch}
    indices = [key[1] for key in keys]
    assert len(set(indices)) == len(indices) > num_clips - batch_size * world_size
    assert set(indices) <= set(range(num_clips))


@given(st.integers(0, 7))
def test_epoch_that_begins_at_a_step_equals_the_tail_of_the_whole(start_step: int) -> None:
    whole = ClipSampler(num_clips=30, batch_size=2, rank=1, world_size=2, seed=5, epoch=3)
    tail = ClipSampler(num_clips=30, batch_size=2, rank=1, world_size=2, seed=5)
    tail.set_epoch(3, start_step)
    assert list(tail) == list(whole)[start_step:]
    assert len(tail) == len(whole) - start_step == 7 - start_step
    assert tail.steps_per_epoch == 7


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_fewer_ranks_share_the_slots_of_as_many_as_there_are_slots(
    world_size: int, more: int, start_step: int
) -> None:
    common = {"num_clips": 70, "batch_size": 2, "epoch": 1, "start_step": start_step}
    num_slots = world_size + more
    alone = [ClipSampler(**common, rank=r, world_size=num_slots) for r in range(num_slots)]
    expected = [list(slot) for slot in alone]
    seen: list[int] = []
    for rank in range(world_size):
        shared = ClipSampler(**common, rank=rank, world_size=world_size, num_slots=num_slots)
        batches = list(shared)
        assert len(shared) == len(batches)
        assert shared.steps_per_epoch == alone[0].steps_per_epoch
        for place, slot in enumerate(shared.slots):
            assert batches[place :: len(shared.slots)] == expected[slot]
            seen.append(slot)
    assert sorted(seen) == list(range(num_slots))


def test_order_differs_between_epochs_and_seeds_and_repeats_itself() -> None:
    orders = {
        (seed, epoch): next(iter(ClipSampler(num_clips=20, batch_size=20, seed=seed, epoch=epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(index for _, index in order) for order in orders.values()}) == 4
    again = ClipSampler(num_clips=20, batch_size=20, seed=1, epoch=1)
    assert next(iter(again)) == next(iter(again)) == orders[1, 1]


def test_list_shorter_than_a_global_batch_is_refused_with_numbers() -> None:
    with pytest.raises(UsageError, match=r"10 clips .* 12 \(4 x 3 ranks\).* at most 3"):
        ClipSampler(num_clips=10, batch_size=4, world_size=3)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}])
def test_impossible_ranks_and_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        ClipSampler(**{"num_clips": 10, "batch_size": 1, **options})


@pytest.mark.parametrize("start_step", [-1, 6])
def test_step_outside_the_epoch_is_refused(start_step: int) -> None:
    with pytest.raises(UsageError, match="of 5 steps"):
        ClipSampler(num_clips=10, batch_size=2, start_step=start_step)


@pytest.mark.parametrize(("num_slots", "world_size"), [(1, 1), (4, 2)])
def test_several_clips_of_an_opened_video_share_a_batch(num_slots: int, world_size: int) -> None:
    """So many epochs open each video once, are as long as ever, and repeat no key."""

    def epoch(number: int) -> list[list[tuple[int, int]]]:
        ranks = [
            list(
                ClipSampler(
                    num_clips=51, batch_size=4, seed=2, epoch=number, rank=rank,
                    world_size=world_size, num_slots=num_slots, clips_per_open=2,
                )
            )
            for rank in range(world_size)
        ]  # fmt: skip
        assert {len(batches) for batches in ranks} == {
            51 // (4 * num_slots) * num_slots // world_size
        }
        return [batch for batches in ranks for batch in batches]

    first, second = epoch(6), epoch(7)
    for batch in first + second:
        assert [index for _, index in batch[::2]] == [index for _, index in batch[1::2]]
    opened = [index for batch in first + second for _, index in batch[::2]]
    assert len(opened) == len(set(opened))
    keys = [key for number in range(4) for batch in epoch(number) for key in batch]
    assert len(keys) == len(set(keys))
    assert epoch(8) != first


def test_clips_of_an_opened_video_must_fill_the_batch() -> None:
    with pytest.raises(UsageError, match="clips_per_open 3 does not divide the 4 clips"):
        ClipSampler(num_clips=8, batch_size=4, clips_per_open=3)
