"""One frame as a JPEG of which any part can be decoded without the rest.

The entropy coder starts anew every 32 x 16 pixels (restart markers), and pictures are filled up to
whole tiles with their last row and column. So the tiles under a crop are cut out of the file as
they are, and make a JPEG of their own. Its pixels are those of the whole picture, bit for bit.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tats_ray.core.arrays import UInt8
from tats_ray.data.decode import RgbConverter

_TILE_WIDTH, _TILE_HEIGHT = 32, 16
_RESTART, _END, _SIZES, _SCAN = 0xD0, 0xD9, 0xC0, 0xDA


def encode_frame(frame: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """A whole JPEG, in colour at half the size (4:2:0)."""
    height, width, _ = frame.shape
    missing = ((0, -height % _TILE_HEIGHT), (0, -width % _TILE_WIDTH), (0, 0))
    padded = np.pad(frame, missing, "edge")
    out = io.BytesIO()
    Image.fromarray(padded).save(
        out, "JPEG", quality=quality, subsampling="4:2:0", restart_marker_blocks=2
    )
    return out.getvalue()


class PartDecoder:
    """Decodes parts of frames of `encode_frame`, one after the other, with ffmpeg."""

    def __init__(self) -> None:
        import av

        self._decoder = av.CodecContext.create("mjpeg", "r")
        self._decoder.thread_count = 1
        self._to_rgb = RgbConverter()

    def __call__(
        self, jpeg: bytes, left: int, top: int, width: int, height: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a box, of which only the tiles that it touches are decoded.

        Raises:
            ValueError: for what is no whole frame.
        """
        import av

        columns = range(left // _TILE_WIDTH, -(-(left + width) // _TILE_WIDTH))
        rows = range(top // _TILE_HEIGHT, -(-(top + height) // _TILE_HEIGHT))
        (frame,) = self._decoder.decode(av.Packet(_cut(jpeg, columns, rows)))
        y, x = top % _TILE_HEIGHT, left % _TILE_WIDTH
        return self._to_rgb(frame)[y : y + height, x : x + width]


def _cut(jpeg: bytes, columns: range, rows: range) -> bytes:
    """Some tiles of a JPEG as one of their own."""
    header, size_at = _header(jpeg)
    height, width = (int.from_bytes(jpeg[at : at + 2], "big") for at in (size_at, size_at + 2))
    num_rows, num_columns = height // _TILE_HEIGHT, width // _TILE_WIDTH

    scan = np.frombuffer(jpeg, np.uint8, offset=header)
    escapes = np.flatnonzero(scan[:-1] == 0xFF)
    kinds = scan[escapes + 1]
    ends = escapes[(kinds & 0xF8 == _RESTART) | (kinds == _END)]
    if len(ends) != num_rows * num_columns:
        raise ValueError(f"a frame has {len(ends)} tiles of {num_rows * num_columns}")
    starts = np.concatenate([[0], ends[:-1] + 2]).reshape(num_rows, num_columns)
    starts = starts[rows.start : rows.stop, columns.start]
    ends = ends.reshape(num_rows, num_columns)[rows.start : rows.stop, columns.start : columns.stop]

    # Tiles with the marker behind each; the markers must count from 0 to 7 again.
    lengths = ends[:, -1] + 2 - starts
    offsets = header + np.cumsum(lengths) - lengths
    tiles = [scan[at : at + length] for at, length in zip(starts, lengths, strict=True)]
    part = np.concatenate([np.frombuffer(jpeg, np.uint8, header), *tiles])
    markers = (ends - starts[:, None] + offsets[:, None] + 1).ravel()
    part[markers] = _RESTART + np.arange(len(markers)) % 8
    part[-1] = _END
    sides = np.array([len(rows) * _TILE_HEIGHT, len(columns) * _TILE_WIDTH], ">u2")
    part[size_at : size_at + 4] = sides.view(np.uint8)
    return part.tobytes()


def _header(jpeg: bytes) -> tuple[int, int]:
    """Where the scan of a JPEG begins, and where its height and width stand."""
    at, size_at = 2, 0
    while at + 4 < len(jpeg) and jpeg[at] == 0xFF:
        kind, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if kind == _SIZES:
            size_at = at + 5
        at += 2 + length
        if kind == _SCAN and size_at:
            return at, size_at
    raise ValueError("is no JPEG")
