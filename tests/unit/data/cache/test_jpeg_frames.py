from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tats_ray.data.cache.jpeg_frames import PartDecoder, encode_frame


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(240, 320), (256, 455), (243, 37), (16, 32), (9, 7), (1, 1)])
def test_any_part_is_what_the_whole_shows_there(size: tuple[int, int]) -> None:
    jpeg, decode = encode_frame(_picture(*size), 90), PartDecoder()
    whole = decode(jpeg, 0, 0, size[1], size[0]).copy()
    assert whole.shape == (*size, 3)
    draw = np.random.default_rng(1)
    for _ in range(100):
        (top, bottom), (left, right) = (sorted(draw.choice(n + 1, 2, False).tolist()) for n in size)
        part = decode(jpeg, left, top, right - left, bottom - top)
        np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_whole_is_what_another_decoder_shows() -> None:
    y, x = np.mgrid[:100, :150]
    smooth = np.stack([x + y, 255 - x, 2 * y], -1).clip(0, 255).astype(np.uint8)
    jpeg = encode_frame(smooth, 90)
    ours = PartDecoder()(jpeg, 0, 0, 150, 100)
    theirs = np.asarray(Image.open(io.BytesIO(jpeg)))[:100, :150]
    assert np.abs(ours.astype(int) - theirs).mean() < 1.5
    assert np.abs(ours.astype(int) - smooth).mean() < 1.5


def test_part_of_a_picture_needs_less_of_the_file() -> None:
    """What lies outside of the tiles may even be damaged."""
    jpeg = encode_frame(_picture(240, 320), 90)
    sound = PartDecoder()(jpeg, 0, 0, 60, 60)
    damaged = bytearray(jpeg)
    at = len(jpeg) * 3 // 4
    damaged[at : at + 400] = bytes(0 if byte != 0xFF else byte for byte in jpeg[at : at + 400])
    damaged = bytes(
        new if old != 0xFF and before != 0xFF else old
        for new, old, before in zip(damaged, jpeg, b"\0" + jpeg, strict=False)
    )
    assert damaged != jpeg
    np.testing.assert_array_equal(PartDecoder()(damaged, 0, 0, 60, 60), sound)


def test_quality_decides_how_near_the_picture_is() -> None:
    y, x = np.mgrid[:96, :128]
    smooth = np.stack([x + y, 255 - x, 2 * y], -1).clip(0, 255).astype(np.uint8)
    errors = []
    for quality in (30, 90):
        shown = PartDecoder()(encode_frame(smooth, quality), 0, 0, 128, 96)
        errors.append(np.abs(shown.astype(int) - smooth).mean())
    assert errors[1] < 1.5 < errors[0]


@pytest.mark.parametrize("cut", [lambda jpeg: jpeg[:-300], lambda jpeg: jpeg[300:], lambda _: b""])
def test_what_is_no_whole_frame_is_refused(cut: object) -> None:
    jpeg = encode_frame(_picture(64, 64), 90)
    with pytest.raises(ValueError):
        PartDecoder()(cut(jpeg), 0, 0, 64, 64)  # type: ignore[operator]
