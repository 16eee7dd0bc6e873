"""Clips to scrub through: what runs made of them at each checkpoint, packed into a page."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from einops import rearrange
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from tats_ray.core.arrays import Bool, Float, UInt8
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import three

BUDGET_BYTES = 3_000_000
"""Of all pictures of a viewer, as they stand in the page."""
_NUM_COLOURS = 64
_COLOURS = {"error": "magma", "probability": "viridis"}

Frames = UInt8[np.ndarray, "F H W 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the networks of one checkpoint make of one clip. `t` is a time slot."""

    reconstruction: Frames
    """Visible patches are copied."""
    error: Float[np.ndarray, "t h w"]
    """Per token; 0 where visible."""
    probability: Float[np.ndarray, "t h w"]
    """Sums to one over the clip."""
    visible: Bool[np.ndarray, "t h w"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipView:
    """One clip, and what every run makes of it at each of its checkpoints."""

    name: str
    why: str
    """Why this clip is shown, in words."""
    frames: Frames
    looks: Sequence[Sequence[Look]]
    """By run, and then by checkpoint, oldest first."""
    other_visible: Bool[np.ndarray, "t h w"]
    """What the mask to compare with shows."""
    moving: Bool[np.ndarray, "t h w"] | None = None
    """Tokens that truly move, where that is known."""


@dataclass(frozen=True, slots=True)
class Column:
    """A run of a viewer: its name, and the MAE steps of its checkpoints, rising."""

    name: str
    steps: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewing:
    """All that a viewer shows; every clip is of the same grid."""

    grid: TokenGrid
    columns: Sequence[Column]
    clips: Sequence[ClipView]
    rule: str
    """How the clips were chosen, a sentence."""
    other_label: str
    """Whose mask the other one is."""
    is_normalized: bool = True
    """Errors are of normalised patches; else of pixels in [0, 1]."""


def viewer_html(viewing: Viewing) -> str:
    """Controls, canvases and their data; `report.js` brings them to life."""
    layers, steps = _layers(viewing), _steps(viewing)
    clips = "".join(
        _choice("clip", number, f"<b>{escape(clip.name)}</b> <span>{escape(clip.why)}</span>")
        for number, clip in enumerate(viewing.clips)
    )
    views = "".join(
        _choice("layer", key, f'<canvas aria-hidden="true"></canvas>{escape(name)}')
        for key, name, _ in layers
    )
    columns = "".join(
        '<figure><canvas role="img"></canvas><figcaption></figcaption></figure>'
        for _ in viewing.columns
    )
    last = viewing.grid.num_frames
    one = ' class="one"' * (len(viewing.columns) == 1)
    return (
        f'<div id="viewer"{one}><noscript><p>The viewer needs JavaScript.</p></noscript>'
        f'<fieldset class="pills"><legend>Clip</legend>{clips}</fieldset>'
        f'<fieldset class="thumbs"><legend>View</legend>{views}</fieldset>'
        f'<div id="stage" tabindex="-1">{columns}</div><p id="key"></p>'
        f'<div class="slide"><label for="frame">Frame</label><button id="play" type="button">Play'
        f'</button><input type="range" id="frame" min="1" max="{last}" value="1">'
        '<output for="frame"></output></div>'
        f'<div class="slide"{" hidden" * (len(steps) < 2)}>'
        '<label for="checkpoint">Checkpoint</label><input type="range" id="checkpoint" min="1" '
        f'max="{len(steps)}" value="{len(steps)}"><output for="checkpoint"></output></div>'
        '<p id="said" role="status"></p>'
        '<p class="note">Drag over the picture, or press the left and right arrow keys, to move '
        "through time. Up and down arrow keys step through the checkpoints. "
        f"{escape(viewing.rule)}</p>"
        f'<script type="application/json" id="viewer-data">{_data(viewing)}</script></div>'
    )


def _choice(group: str, value: object, label: str) -> str:
    return f'<label><input type="radio" name="{group}" value="{value}">{label}</label>'


def _layers(viewing: Viewing) -> list[tuple[str, str, str]]:
    """Key, name and meaning of each view that there is."""
    painted = ", hidden patches at their true mean and deviation" * viewing.is_normalized
    scale = "of normalised pixels" if viewing.is_normalized else "of pixels from 0 to 1"
    knows_motion = any(clip.moving is not None for clip in viewing.clips)
    outlined = "; outlined: true motion" * knows_motion
    shown = "Bright and outlined: the tokens that the autoencoder sees"
    layers = [
        ("input", "input", "The frames of the clip."),
        ("reconstruction", "reconstruction", f"What the autoencoder predicts{painted}."),
        ("error", "error", f"Mean squared error per token, {scale}; 0 where visible."),
        ("probability", "probability", f"Sampling probability, in multiples of uniform{outlined}."),
        ("mask", "mask", f"{shown}."),
        ("other", viewing.other_label, f"{shown} under the mask to compare with."),
    ]
    return layers + [("motion", "true motion", "Bright: tokens that truly move.")] * knows_motion


def _steps(viewing: Viewing) -> list[int]:
    """Steps at which any of the runs has a checkpoint."""
    return sorted({step for column in viewing.columns for step in column.steps})


def _data(viewing: Viewing) -> str:
    sprites = _within(BUDGET_BYTES, [frames for clip in viewing.clips for frames in _films(clip)])
    grid = viewing.grid
    data = {
        "frames": grid.num_frames,
        "tubelet": grid.tubelet,
        "cells": grid.side,
        "steps": _steps(viewing),
        "columns": [{"name": c.name, "steps": list(c.steps)} for c in viewing.columns],
        "layers": {key: {"name": name, "meaning": what} for key, name, what in _layers(viewing)},
        "colours": {layer: _colours(name) for layer, name in _COLOURS.items()},
        "clips": [_clip(clip, sprites) for clip in viewing.clips],
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _films(clip: ClipView) -> Iterator[Frames]:
    yield clip.frames
    for looks in clip.looks:
        yield from (look.reconstruction for look in looks)


def _clip(clip: ClipView, sprites: Iterator[str]) -> dict[str, Any]:
    return {
        "name": clip.name,
        "size": clip.frames.shape[1],
        "input": next(sprites),
        "moving": None if clip.moving is None else _bytes(clip.moving),
        "other": _bytes(clip.other_visible),
        "looks": [[_look(look, sprites) for look in looks] for looks in clip.looks],
    }


def _look(look: Look, sprites: Iterator[str]) -> dict[str, Any]:
    hidden = look.error[~look.visible]
    # A single bad token must not leave the others black.
    known = hidden[np.isfinite(hidden)]
    top = float(np.quantile(known, 0.99)) if known.size else 0.0
    times_uniform = np.nan_to_num(look.probability * look.probability.size)
    return {
        "reconstruction": next(sprites),
        "error": _scaled(look.error, top),
        # A uniform sampler is neither dark nor bright.
        "probability": _scaled(times_uniform, max(2.0, float(times_uniform.max()))),
        "visible": _bytes(look.visible),
        "mean": three(float(hidden.mean()) if hidden.size else math.nan),
    }


def _scaled(values: Float[np.ndarray, "t h w"], top: float) -> dict[str, Any]:
    """Bytes, and the value that 255 stands for; what is not finite is as bright as can be."""
    scaled = np.nan_to_num(255.0 * values / (top or 1.0), nan=255.0)
    return {"top": top or 1.0, "bytes": _bytes(np.clip(scaled, 0, 255).round())}


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii")


def _colours(name: str) -> list[str]:
    return [to_hex(shade) for shade in colormaps[name](np.linspace(0.0, 1.0, _NUM_COLOURS))]


def _within(budget: int, films: Sequence[Frames]) -> Iterator[str]:
    """Data addresses of the films, as exact as fits the budget: PNG, then JPEG, then smaller."""
    ways: list[tuple[str, Mapping[str, Any], int]] = [("PNG", {}, 1)]
    ways += [("JPEG", {"quality": quality, "subsampling": 0}, 1) for quality in (92, 80, 65)]
    ways += [("JPEG", {"quality": 70}, shrink) for shrink in (2, 4, 8)]
    for kind, options, shrink in ways:
        found = list(_encoded(films, budget, lambda film: _sprite(film, kind, options, shrink)))  # noqa: B023
        if len(found) == len(films):
            break
    return iter(found)


def _encoded(
    films: Sequence[Frames], budget: int, encode: Callable[[Frames], str]
) -> Iterator[str]:
    """Those of the films that fit in."""
    used = 0
    for film in films:
        text = encode(film)
        used += len(text)
        if used > budget:
            return
        yield text


def _sprite(film: Frames, kind: str, options: Mapping[str, Any], shrink: int) -> str:
    """All frames in one picture, in rows of `ceil(sqrt(F))`, which the page counts likewise."""
    across = math.ceil(math.sqrt(len(film)))
    missing = -len(film) % across
    padded = np.concatenate([film, np.zeros((missing, *film.shape[1:]), np.uint8)])
    sheet = Image.fromarray(rearrange(padded, "(r c) h w d -> (r h) (c w) d", c=across))
    out = io.BytesIO()
    sheet.reduce(shrink).save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
