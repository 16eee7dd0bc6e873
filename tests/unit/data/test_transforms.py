from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.data.transforms import (
    CropBox,
    center_crop_box,
    crop_and_resize,
    dense_start,
    dense_view,
    multi_scale_crop_box,
    multi_scale_sizes,
    random_resized_crop_box,
    sample_dense,
    sample_finetune_dense,
    sample_segments,
    segment_view,
    view_crop_box,
)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("total", "stride", "start", "expected"),
    [
        (300, 2, 268, list(range(268, 299, 2))),
        (20, 2, 0, [*range(0, 20, 2), *[18] * 6]),
        (9, 2, 0, [0, 2, 4, *[6] * 13]),
        (31, 2, 0, [*range(0, 30, 2), 28]),
        (16, 1, 0, [*range(15), 14]),  # at stride 1 the last start repeats a frame
        (17, 1, 0, [*range(16)]),
        (1, 4, 0, [0] * 16),
    ],
)
def test_dense_frames_equal_the_reference_vectors(
    total: int, stride: int, start: int, expected: list[int]
) -> None:
    assert sample_dense(total, 16, stride, start) == expected


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32))
def test_dense_frames_lie_in_the_video_and_step_by_the_stride(
    total: int, clip_len: int, stride: int, seed: int
) -> None:
    start = dense_start(total, clip_len, stride, _generator(seed))
    indices = sample_dense(total, clip_len, stride, start)
    assert len(indices) == clip_len
    assert min(indices) >= 0
    assert max(indices) < total
    assert set(np.diff(indices)) <= {0, stride}
    if start + clip_len * stride < total:
        assert indices == list(range(start, start + clip_len * stride, stride))


def test_dense_start_takes_every_start_and_none_beyond() -> None:
    generator = _generator(0)
    starts = Counter(dense_start(36, 16, 2, generator) for _ in range(500))
    assert sorted(starts) == [0, 1, 2, 3, 4]
    assert min(starts.values()) > 60


@pytest.mark.parametrize(("total", "start"), [(36, 2), (32, 0), (33, 0), (10, 0)])
def test_dense_start_without_a_generator_is_the_middle(total: int, start: int) -> None:
    assert dense_start(total, 16, 2) == start


def test_finetune_frames_equal_the_reference_vectors() -> None:
    short = [0, 2, 4, 6, 8, 11, 13, 15, 17, 19, *[19] * 6]
    assert sample_finetune_dense(20, 16, 2) == short
    long = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    assert sample_finetune_dense(65, 16, 4) == long  # a window of 64 ends at (65 + 64) // 2 = 64


def test_finetune_frames_at_random_reach_both_ends_of_the_video() -> None:
    generator = _generator(0)
    clips = [sample_finetune_dense(100, 16, 4, generator) for _ in range(400)]
    assert min(clip[0] for clip in clips) == 0
    assert max(clip[-1] for clip in clips) == 98  # the window ends at 99, and its end is left out
    assert {clip[-1] - clip[0] for clip in clips} == {63}


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_segment_frames_lie_one_in_each_segment(total: int, seed: int) -> None:
    indices = sample_segments(total, 16, _generator(seed))
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < total
    if total >= 16:
        assert [index // (total // 16) for index in indices] == list(range(16))
    else:
        assert indices == [segment * total // 16 for segment in range(16)]


def test_segment_views_equal_the_reference_vectors() -> None:
    even = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]
    assert segment_view(40, 16, 0) == even
    assert segment_view(40, 16, 1) == sample_segments(40, 16) == [index + 1 for index in even]


@pytest.mark.parametrize(
    ("total", "stride", "num_views", "starts"),
    [(300, 4, 5, [0, 14, 29, 44, 59]), (150, 2, 2, [0, 59]), (64, 4, 2, [0, 0]), (300, 4, 1, [29])],
)
def test_dense_views_equal_the_reference_vectors(
    total: int, stride: int, num_views: int, starts: list[int]
) -> None:
    for view, start in enumerate(starts):
        indices = dense_view(total, 16, stride, view, num_views)
        assert indices == [stride * (start + step) for step in range(16)]


def test_dense_view_of_a_short_video_repeats_its_last_sample() -> None:
    assert dense_view(10, 6, 3, 0, 2) == [0, 3, 6, 9, 9, 9]


def test_multi_scale_sizes_are_the_ten_neighbouring_pairs() -> None:
    # A 340 x 256 picture: 256, 224, 192, 168.
    sides = (256, 224, 192, 168)
    near = {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) < 2}
    sizes = multi_scale_sizes(256, 224)
    assert len(sizes) == 10
    assert set(sizes) == near


def test_multi_scale_sides_near_the_target_become_the_target() -> None:
    assert {side for pair in multi_scale_sizes(226, 224) for side in pair} == {224, 197, 169, 149}
    assert {side for pair in multi_scale_sizes(227, 224) for side in pair} == {227, 198, 170, 149}
    assert max(side for pair in multi_scale_sizes(222, 224) for side in pair) == 222


def test_multi_scale_crop_takes_all_sizes_at_all_thirteen_places() -> None:
    generator = _generator(0)
    boxes = [multi_scale_crop_box(340, 256, 224, generator) for _ in range(4000)]
    whole = Counter((b.left, b.top) for b in boxes if (b.width, b.height) == (168, 168))
    x, y = (340 - 168) // 4, (256 - 168) // 4
    corners_edges_centre = {(i * x, j * y) for i in (0, 2, 4) for j in (0, 2, 4)}
    assert set(whole) == corners_edges_centre | {(i * x, j * y) for i in (1, 3) for j in (1, 3)}
    sizes = Counter((box.width, box.height) for box in boxes)
    assert len(sizes) == 10
    assert min(sizes.values()) > 300


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.integers(0, 2**32))
def test_boxes_lie_within_the_picture(width: int, height: int, size: int, seed: int) -> None:
    boxes = [
        multi_scale_crop_box(width, height, size, _generator(seed)),
        random_resized_crop_box(width, height, _generator(seed)),
        *(view_crop_box(width, height, view) for view in range(3)),
    ]
    for box in boxes:
        assert min(box.left, box.top) >= 0
        assert min(box.width, box.height) >= 1
        assert box.left + box.width <= width
        assert box.top + box.height <= height


def test_random_resized_crops_keep_half_the_area_and_flip_half_the_time() -> None:
    generator = _generator(0)
    boxes = [random_resized_crop_box(320, 240, generator) for _ in range(600)]
    shares = np.array([box.width * box.height / (320 * 240) for box in boxes])
    aspects = np.array([math.log(box.width / box.height) for box in boxes])
    assert 0.49 < shares.min() < 0.53
    assert 0.97 < shares.max() <= 1.0
    assert np.abs(aspects).max() < math.log(4 / 3) + 0.02
    assert 0.4 < np.mean([box.is_flipped for box in boxes]) < 0.6


def test_random_resized_crop_of_a_strip_falls_back_to_its_centre() -> None:
    box = random_resized_crop_box(1000, 30, _generator(0))
    assert (box.left, box.top, box.width, box.height) == (480, 0, 40, 30)


def test_center_crop_is_the_middle_square_and_views_reach_the_ends() -> None:
    assert center_crop_box(320, 240) == CropBox(40, 0, 240, 240)
    assert center_crop_box(240, 320) == CropBox(0, 40, 240, 240)
    assert [view_crop_box(320, 240, view).left for view in range(3)] == [0, 40, 80]


def test_crop_without_resize_is_the_exact_part_of_the_picture() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    clip = crop_and_resize(frames, CropBox(7, 4, 8, 8), 8)
    part = frames[:, 4:12, 7:15]
    assert clip.shape == (3, 3, 8, 8)
    assert clip.is_contiguous()
    np.testing.assert_array_equal(clip.numpy(), part.transpose(3, 0, 1, 2))
    flipped = crop_and_resize(frames, CropBox(7, 4, 8, 8, is_flipped=True), 8)
    np.testing.assert_array_equal(flipped.numpy(), part[:, :, ::-1].transpose(3, 0, 1, 2))


@pytest.mark.parametrize(("width", "height", "size"), [(48, 36, 12), (20, 20, 64), (31, 45, 32)])
def test_resize_agrees_with_interpolation_in_double_precision(
    width: int, height: int, size: int
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), np.uint8)
    box = CropBox(5, 9, width, height)
    clip = crop_and_resize(frames, box, size)
    part = torch.from_numpy(frames[:, 9 : 9 + height, 5 : 5 + width].astype(np.float64))
    expected = torch.einsum("yh,fhwc,xw->cfyx", _tent(size, height), part, _tent(size, width))
    assert (clip.double() - expected).abs().max() < 1.51


def _tent(size: int, length: int) -> torch.Tensor:
    """Weights of an antialiased bilinear resize, written down from its definition."""
    scale = length / size
    centre = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    place = torch.arange(length, dtype=torch.float64)[None] + 0.5
    weight = (1 - (place - centre).abs() / max(scale, 1.0)).clamp(min=0)
    return weight / weight.sum(1, keepdim=True)
