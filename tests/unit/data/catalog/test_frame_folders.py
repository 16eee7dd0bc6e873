from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import numbered_frames, read_numbers, write_pictures
from PIL import Image

from tats_ray.core.errors import UsageError, VideoError
from tats_ray.data.catalog.frame_folders import is_frame_folder
from tats_ray.data.decode import Backend, probe, read_frames
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.views import ViewDataset, ViewPlan


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
@pytest.mark.parametrize("pattern", ["img_{:05d}.jpg", "{}.png", "v1_2-{:03d}.JPEG"])
def test_pictures_are_the_frames_in_the_order_of_their_numbers(
    tmp_path: Path, pattern: str, backend: Backend
) -> None:
    folder = write_pictures(tmp_path / "v", 12, pattern)
    for other in ("flow_x_00001.jpg", "flow_y_00001.jpg", "notes.txt", "cover.jpg"):
        (folder / other).touch()
    asked = [11, 0, 9, 9, 3]
    assert read_numbers(read_frames(str(folder), lambda n: asked, backend=backend)) == asked
    info = probe(str(folder))
    assert (info.num_frames, info.width, info.height, info.reader) == (12, 64, 64, "")


def test_lossless_pictures_come_back_bit_for_bit(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "v", 4, "{}.png")
    np.testing.assert_array_equal(read_frames(str(folder), range), numbered_frames(4))


def test_folder_of_frames_stands_in_a_list_and_gives_clips(tmp_path: Path) -> None:
    write_pictures(tmp_path / "with.dot", 8)
    write_pictures(tmp_path / "plain", 8)
    path = tmp_path / "list.csv"
    path.write_text("with.dot\t1\nplain\t0\n")
    entries = read_list(path)
    assert entries == [
        VideoEntry(str(tmp_path / "with.dot"), 1),
        VideoEntry(str(tmp_path / "plain"), 0),
    ]
    views = ViewDataset(entries, ViewPlan(), num_frames=4, image_size=32, stride=2)
    pixels = views[1].pixels
    assert isinstance(pixels, torch.Tensor)
    assert pixels.shape == (1, 3, 4, 32, 32)


def test_video_file_is_meant_where_a_folder_has_its_name(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.csv").write_text("a 0\n")
    assert read_list(tmp_path / "list.csv") == [VideoEntry(str(tmp_path / "a.mp4"), 0)]


def test_folder_without_frames_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.b").mkdir()
    (tmp_path / "list.csv").write_text("a.b 0\n")
    with pytest.raises(UsageError, match="no such file"):
        read_list(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "img_00003.jpg").unlink(), r"gap between img_00002.jpg and img_00004.jpg"),
        (lambda f: (f / "image_1.jpg").touch(), r"several series of pictures \(image_\*, img_\*\)"),
        (lambda f: (f / "img_2.png").touch(), r"two pictures of one number"),
        (lambda f: (f / "img_00005.jpg").write_bytes(b"no"), r"img_00005.jpg cannot be read \(c"),
        (lambda f: _cut(f / "img_00001.jpg"), r"img_00001.jpg cannot be read \(.*truncated"),
        (lambda f: _small(f / "img_00005.jpg"), r"pictures of several sizes, 8x8 and 64x64"),
        (lambda f: [p.unlink() for p in f.iterdir()], r"has no numbered pictures"),
    ],
)
def test_folder_that_is_not_one_sound_series_is_refused(
    tmp_path: Path, change: object, reason: str
) -> None:
    folder = write_pictures(tmp_path / "v", 5)
    change(folder)  # type: ignore[operator]
    with pytest.raises(VideoError, match=reason) as caught:
        read_frames(str(folder), range)
    assert caught.value.path == str(folder)
    assert "\n" not in str(caught.value)


def test_every_second_frame_kept_is_a_series(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "v", 6)
    for number in (1, 3, 5):
        (folder / f"img_{number:05d}.jpg").unlink()
    assert read_numbers(read_frames(str(folder), range)) == [1, 3, 5]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def _small(path: Path) -> None:
    Image.fromarray(numbered_frames(1)[0][:8, :8]).save(path)


def test_folder_of_films_with_a_numbered_poster_is_no_video(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "cats", 1, "cover{}.jpg")
    assert is_frame_folder(folder)
    (folder / "v0.mp4").touch()
    assert not is_frame_folder(folder)
    (folder / "v0.mp4").unlink()
    (folder / "more").mkdir()
    assert not is_frame_folder(folder)
