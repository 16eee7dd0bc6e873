"""Named random streams: a name is all that a stream depends on."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from tats_ray.core.seeds import Name, derive, stream


def draw(seed: int, *name: Name) -> Tensor:
    return torch.rand(8, generator=stream(seed, *name))


def test_same_name_gives_the_same_stream() -> None:
    assert torch.equal(draw(3, "draw", 7, 0), draw(3, "draw", 7, 0))


def test_streams_of_other_names_and_seeds_differ() -> None:
    names: list[tuple[int, tuple[Name, ...]]] = [
        (seed, (purpose, step, rank))
        for seed in (0, 1)
        for purpose in ("draw", "order")
        for step in (0, 1, 10)
        for rank in (0, 1)
    ]
    draws = [draw(seed, *name) for seed, name in names]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


def test_numbers_next_to_each_other_in_a_name_do_not_run_together() -> None:
    assert len({derive(0, 1, 11), derive(0, 11, 1), derive(0, 111), derive(0, 1, 1, 1)}) == 4


def test_stream_does_not_touch_the_global_state_and_does_not_depend_on_it() -> None:
    torch.manual_seed(0)
    first = draw(5, "clip")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(draw(5, "clip"), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_derived_seeds_fit_every_generator() -> None:
    seeds = [derive(0, "any", number) for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 200
    assert max(seeds) > 2**61  # all bits are used
