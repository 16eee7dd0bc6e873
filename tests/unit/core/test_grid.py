"""The lattice of tokens: sizes, visible counts, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid

PAPER = TokenGrid()


def test_papers_clip_has_1568_tokens_of_1536_values() -> None:
    assert (PAPER.time, PAPER.side, PAPER.tokens_per_slot) == (8, 14, 196)
    assert PAPER.num_tokens == 8 * 14 * 14 == 1568
    assert PAPER.values_per_token == 2 * 16 * 16 * 3 == 1536
    assert PAPER.clip_shape == (3, 16, 224, 224)


@pytest.mark.parametrize(
    ("ratio", "visible", "visible_tube"),
    [(0.75, 392, 392), (0.80, 313, 320), (0.85, 235, 240), (0.90, 156, 160), (0.95, 78, 80)],
)
def test_visible_counts_follow_the_table_of_the_method(
    ratio: float, visible: int, visible_tube: int
) -> None:
    assert PAPER.num_visible(ratio) == visible
    assert PAPER.num_visible_tube(ratio) == visible_tube


@pytest.mark.parametrize(("time", "side"), [(1, 2), (5, 1), (2, 5), (4, 10), (8, 14)])
def test_visible_counts_are_the_exact_floors_for_every_ratio_of_three_digits(
    time: int, side: int
) -> None:
    grid = TokenGrid(num_frames=2 * time, image_size=4 * side, tubelet=2, patch=4)
    for thousandths in range(1, 1000):
        ratio, exact = thousandths / 1000, Fraction(thousandths, 1000)
        visible = grid.num_tokens * (1 - exact) // 1
        hidden_columns = side**2 * exact // 1
        if visible < 1:
            for count in (grid.num_visible, grid.num_visible_tube):
                with pytest.raises(UsageError, match="leaves none of the"):
                    count(ratio)
            continue
        assert grid.num_visible(ratio) == visible < grid.num_tokens
        if hidden_columns < 1:
            with pytest.raises(UsageError, match="hides none of the"):
                grid.num_visible_tube(ratio)
        else:
            assert grid.num_visible_tube(ratio) == (side**2 - hidden_columns) * time


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 1.0, 1.5, float("nan")])
def test_mask_ratio_outside_0_to_1_is_refused_by_value(ratio: float) -> None:
    for count in (PAPER.num_visible, PAPER.num_visible_tube):
        with pytest.raises(UsageError, match=rf"mask ratio {ratio} is outside \(0, 1\)"):
            count(ratio)


@pytest.mark.parametrize("side", [1, 3, 14])
def test_ratio_that_the_refusal_suggests_is_accepted(side: int) -> None:
    grid = TokenGrid(num_frames=8, image_size=16 * side)
    with pytest.raises(UsageError) as refusal:
        grid.num_visible(0.99999)
    assert grid.num_visible(float(str(refusal.value).rsplit(" ", 1)[1])) == 1
    if side > 1:
        with pytest.raises(UsageError) as refusal:
            grid.num_visible_tube(0.001)
        suggested = float(str(refusal.value).rsplit(" ", 1)[1])
        assert grid.num_visible_tube(suggested) == grid.num_tokens - grid.time


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 230}, "image_size 230 is not a multiple of the patch size 16.*224 or 240"),
        ({"image_size": 10}, "image_size 10 is not a multiple of the patch size 16; try 16$"),
        ({"num_frames": 15}, "num_frames 15 is not a multiple of the tubelet size 2.*14 or 16"),
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"tubelet": -2}, "tubelet must be at least 1, got -2"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
    ],
)
def test_clip_that_is_not_whole_tokens_is_refused_with_sizes_that_are(
    sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        TokenGrid(**sizes)
