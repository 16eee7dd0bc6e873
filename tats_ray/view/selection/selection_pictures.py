"""Pictures of a selection: a contact sheet of its frames, and the heat over the whole video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from tats_ray.core.arrays import Float, UInt8

_SHEET_WIDTH, _MARGIN, _MOST_COLUMNS = 1280, 16, 5
_TEXT, _LINE = 15, 21
_FILM_SIDE = 640
_YELLOW, _INK, _MUTED, _PAPER = (255, 214, 10), (17, 17, 17), (90, 90, 90), (255, 255, 255)
_OPAQUE = 0.65


@dataclass(frozen=True, slots=True)
class SheetFrame:
    """One picture of a contact sheet."""

    pixels: UInt8[np.ndarray, "H W 3"]
    boxes: Sequence[Sequence[int]]
    """Left, top, right, bottom in pixels of the picture."""
    caption: str


def contact_sheet(
    frames: Sequence[SheetFrame], *, title: str, notes: Sequence[str]
) -> UInt8[np.ndarray, "H W 3"]:
    """The frames in rows, with outlined boxes and captions; a title above, notes below."""
    font, bold = ImageFont.load_default(_TEXT), ImageFont.load_default(_TEXT + 5)
    height, width = frames[0].pixels.shape[:2]
    columns = min(len(frames), _MOST_COLUMNS, max(1, round(sqrt(len(frames) * height / width)) + 1))
    cell = (_SHEET_WIDTH - _MARGIN) // columns - _MARGIN
    # A tall picture must not fill a screen by itself.
    scale = min(cell / width, cell / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    row = size[1] + _LINE + _MARGIN
    lines = [line for note in notes for line in wrap(note, 150)]
    top = 2 * _MARGIN + _LINE
    total = top + ceil(len(frames) / columns) * row + len(lines) * _LINE + _MARGIN
    sheet = Image.new("RGB", (_SHEET_WIDTH, total), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _INK, bold)
    for index, frame in enumerate(frames):
        x = _MARGIN + index % columns * (cell + _MARGIN)
        y = top + index // columns * row
        sheet.paste(Image.fromarray(frame.pixels).resize(size, Image.Resampling.LANCZOS), (x, y))
        for box in frame.boxes:
            left, up, right, down = (round(scale * edge) for edge in box)
            edges = (x + left, y + up, x + max(left, right - 1), y + max(up, down - 1))
            pen.rectangle(edges, outline=_YELLOW, width=2)
        pen.text((x, y + size[1] + 3), frame.caption, _INK, font)
    for index, line in enumerate(lines):
        y = total - _MARGIN - (len(lines) - index) * _LINE
        pen.text((_MARGIN, y), line, _MUTED, font)
    return np.asarray(sheet)


class HeatFilm:
    """Frames of a video under the heat of their time slot, bright where the sampler looks.

    Args:
        heat: in multiples of uniform; from 1 (clear) on, tokens are tinted, up to its top.
        frames_per_slot: of the video.
        selected: time slots whose frames get a frame around them.
    """

    def __init__(
        self,
        heat: Float[np.ndarray, "T rows columns"],
        frames_per_slot: int,
        selected: Sequence[int],
    ) -> None:
        self._heat, self._per_slot, self._selected = heat, frames_per_slot, frozenset(selected)
        # The few most probable tokens must not leave all others clear.
        self._top = max(float(np.quantile(heat, 0.995)), 1.01)

    def pictures(
        self, frames: Iterator[UInt8[np.ndarray, "H W 3"]]
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """At most 640 pixels wide and high, both even."""
        for index, frame in enumerate(frames):
            height, width = frame.shape[:2]
            scale = min(1.0, _FILM_SIDE / max(height, width))
            size = _even(width * scale), _even(height * scale)
            small = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
            yield self._tinted(small, index // self._per_slot)

    def _tinted(self, picture: Image.Image, slot: int) -> UInt8[np.ndarray, "h w 3"]:
        amount = np.clip((self._heat[slot] - 1) / (self._top - 1), 0, 1)
        tint = (colormaps["inferno"](0.25 + 0.75 * amount)[..., :3] * 255).astype(np.uint8)
        cover = (amount * _OPAQUE * 255).astype(np.uint8)
        nearest = Image.Resampling.NEAREST
        whole = Image.fromarray(tint).resize(picture.size, nearest)
        picture.paste(whole, mask=Image.fromarray(cover).resize(picture.size, nearest))
        if slot in self._selected:
            edge = (0, 0, picture.width - 1, picture.height - 1)
            ImageDraw.Draw(picture).rectangle(edge, outline=_YELLOW, width=4)
        return np.asarray(picture)


def _even(side: float) -> int:
    return max(2, int(side) // 2 * 2)
