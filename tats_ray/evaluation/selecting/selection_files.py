"""A selection as files: JSON for programs, a contact sheet and a film for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tats_ray.core.arrays import UInt8
from tats_ray.core.storage import whole_file
from tats_ray.core.words import counted
from tats_ray.data.decode import probe, timed_frames
from tats_ray.data.encode import write_video
from tats_ray.evaluation.selecting.select_frames import VideoSelection
from tats_ray.view.selection.selection_pictures import HeatFilm, SheetFrame, contact_sheet

FILES = ("selection.json", "sheet.png", "heat.mp4")
_FPS = 25  # of a video that does not say
_DIGITS = 6


def write_selection(selection: VideoSelection, out: Path, *, knows: str = "") -> list[Path]:
    """Write `FILES` into a folder that is there; files of these names are replaced.

    Args:
        knows: what the network has learned from, in words.

    Raises:
        UsageError: where the storage refuses; no file is left half written.
        VideoError: where the video cannot be read a second time.
    """
    document, sheet, film = (out / name for name in FILES)
    with whole_file(document) as draft:
        draft.write_text(json.dumps(as_json(selection, knows), indent=1) + "\n", encoding="utf-8")
    slots = [frame.frame // selection.frames_per_slot for frame in selection.frames]
    heat = HeatFilm(selection.heat, selection.frames_per_slot, slots)
    chosen: dict[int, np.ndarray] = {}
    with whole_file(film) as draft:
        frames = _noting(selection, chosen)
        write_video(draft, heat.pictures(frames), fps=_rate(selection.video))
    with whole_file(sheet) as draft:
        Image.fromarray(_sheet(selection, chosen, knows)).save(draft)
    return [document, sheet, film]


def as_json(selection: VideoSelection, knows: str = "") -> dict[str, Any]:
    """All but the heat; probabilities and times with six digits."""
    told = asdict(replace(selection, heat=np.zeros((0, 0, 0))))
    del told["heat"]
    return {"format": 1, **_rounded(told), "knows": knows, "rule": RULE}


RULE = (
    "Of all tokens of the video the most probable ones are kept, where they beat chance. A frame "
    "counts by what its kept tokens have above chance, and no two frames are closer than half of "
    "an even spacing. Probabilities are those of windows of a clip's length, each a competition of "
    "its own, averaged where windows overlap."
)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _noting(
    selection: VideoSelection, chosen: dict[int, np.ndarray]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """All frames; the selected ones are kept on the way."""
    wanted = {frame.frame for frame in selection.frames}
    for index, (_, frame) in enumerate(timed_frames(selection.video)):
        if index in wanted:
            chosen[index] = frame
        yield frame


def _rate(video: str) -> Fraction:
    return Fraction(probe(video).fps or _FPS).limit_denominator(1001)


def _sheet(
    selection: VideoSelection, chosen: dict[int, np.ndarray], knows: str
) -> UInt8[np.ndarray, "H W 3"]:
    frames = [
        SheetFrame(
            chosen[frame.frame],
            [region.box for region in frame.regions],
            f"{frame.time_s:.2f} s, rank {frame.rank}",
        )
        for frame in selection.frames
    ]
    name, count = Path(selection.video).name, counted(len(frames), "frame")
    title = f"{name}: {count}, chosen by {selection.origin}"
    return contact_sheet(frames, title=title, notes=_notes(selection, knows))


def _notes(selection: VideoSelection, knows: str) -> Sequence[str]:
    kept = (
        f"Outlined: regions among the {selection.kept_share:.0%} most probable tokens of all. "
        "Rank 1 has the most in them above chance."
    )
    return [kept, f"{knows[:1].upper()}{knows[1:]}."] if knows else [kept]
