"""Test views: which frames and which squares, decoded once, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import numbered_frames, read_numbers

from tats_ray.core.errors import UsageError
from tats_ray.data import views
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.transforms import view_crop_box
from tats_ray.data.views import ViewDataset, ViewPlan


def dataset(entries: list[VideoEntry], plan: ViewPlan, **options: Any) -> ViewDataset:
    sizes: dict[str, Any] = {"num_frames": 8, "image_size": 48, "stride": 2}
    return ViewDataset(entries, plan, **{**sizes, **options})


@pytest.mark.parametrize(
    ("total", "stride", "clips", "starts"),
    [(300, 4, 5, [0, 14, 29, 44, 59]), (150, 2, 2, [0, 59]), (20, 2, 2, [0, 0])],
)
def test_clips_start_where_the_reference_starts_them(
    total: int, stride: int, clips: int, starts: list[int]
) -> None:
    """Starts worked out from the published test code, in sampled frames [method section 2.6]."""
    frames = ViewPlan(clips, 1).frames(total, 16, stride)
    assert [frame // stride for frame in frames[::16]] == starts
    assert frames[:2] == [0, stride]
    assert max(frames) < total


def test_two_clips_of_segments_interleave() -> None:
    frames = ViewPlan(2, 3, "segments").frames(40, 16, 2)
    first = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]
    assert frames == [*first, 1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]
    assert ViewPlan(1, 1, "segments").frames(40, 16, 2) == frames[16:]


def test_crops_spread_along_the_longer_side() -> None:
    assert [box.left for box in ViewPlan(1, 3).boxes(320, 241)] == [0, 39, 79]
    assert [box.top for box in ViewPlan(1, 5).boxes(240, 320)] == [0, 20, 40, 60, 80]
    assert ViewPlan(1, 1).boxes(320, 241) == [view_crop_box(320, 241, view=1)]
    assert ViewPlan(1, 3).boxes(320, 241) == [view_crop_box(320, 241, view=v) for v in range(3)]
    assert {(box.width, box.height) for box in ViewPlan(1, 3).boxes(320, 241)} == {(241, 241)}


def test_views_of_a_video_come_from_one_decoding(
    numbered_videos: list[VideoEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = views.read_frames

    def counted(path: str, choose: Any, **options: Any) -> Any:
        calls.append(path)
        return real(path, choose, **options)

    monkeypatch.setattr(views, "read_frames", counted)
    found = dataset(numbered_videos, ViewPlan(2, 3))[1]
    assert calls == [numbered_videos[1].path]
    assert found.pixels is not None
    assert found.pixels.shape == (6, 3, 8, 48, 48)
    for number, view in enumerate(found.pixels):
        first = 40 + (0 if number < 3 else 24)  # 20 sampled frames leave room for 12
        shown = read_numbers(view.permute(1, 2, 3, 0).numpy())
        assert shown == list(range(first, first + 16, 2))


def test_crops_of_a_wide_video_differ_and_a_single_one_is_the_middle(tmp_path: Path) -> None:
    frames = numbered_frames(8)
    wide = [frames, frames[:, :, ::-1]]
    write_video(tmp_path / "wide.mp4", torch.cat([torch.tensor(x.copy()) for x in wide], 2).numpy())
    entries = [VideoEntry(str(tmp_path / "wide.mp4"), 0)]
    three = dataset(entries, ViewPlan(1, 3), num_frames=4)[0].pixels
    one = dataset(entries, ViewPlan(1, 1), num_frames=4)[0].pixels
    assert three is not None
    assert one is not None
    assert torch.equal(three[1], one[0])
    assert not torch.equal(three[0], three[2])


def test_unreadable_or_too_short_video_says_why(
    tmp_path: Path, numbered_videos: list[VideoEntry]
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    bad = dataset([VideoEntry(str(tmp_path / "bad.mp4"), 0)], ViewPlan())[0]
    assert bad.pixels is None
    assert "cannot be decoded" in bad.reason
    short = dataset(numbered_videos, ViewPlan(), min_frames=41)[0]
    assert short.reason == "has 40 frames, fewer than 41"


@pytest.mark.parametrize("text", ["2", "2x", "axb", "0x1", "2x0", "-1x3"])
def test_views_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="views"):
        ViewPlan.parse(text)


@pytest.mark.parametrize("text", ["99999x1", "1x1001", "32x32"])
def test_views_without_end_are_refused_and_many_are_not(text: str) -> None:
    assert ViewPlan.parse("100x10").num_views == 1000
    with pytest.raises(UsageError, match=rf"views {text} are \d+ of every video; take 1000 or"):
        ViewPlan.parse(text)


def test_segments_give_no_third_clip() -> None:
    assert str(ViewPlan.parse("2x3", "segments")) == "2x3"
    with pytest.raises(UsageError, match="use 2x3"):
        ViewPlan.parse("5x3", "segments")
