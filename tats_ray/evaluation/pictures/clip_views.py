"""What the checkpoints of runs make of the same few clips, for the viewer of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tats_ray.checkpoints.folders import candidates
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.errors import CheckpointError, VideoError
from tats_ray.core.seeds import stream
from tats_ray.core.types import Selection
from tats_ray.core.words import counted, three
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import token_motion
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.oracle import with_motion
from tats_ray.models.zoo import num_visible
from tats_ray.ops.selection import is_visible
from tats_ray.view.mask_panel import lattice, paint
from tats_ray.view.page.viewer import ClipView, Column, Frames, Look, Viewing

T = TypeVar("T")

_NUM_CANDIDATES = 12
_NUM_CLIPS = 4
_MOST_LOOKS = 48
"""Of all runs, clips and checkpoints: what a page has room for."""
_MOST_CHECKPOINTS = 6
_SEED = 0
"""Draws are those of `tats show-masks`."""


@dataclass(frozen=True)
class _Clip:
    name: str
    pixels: UInt8[Tensor, "1 C F H W"]
    motion: Float[Tensor, "1 N"] | None
    """Share of each token that truly moves."""
    why: str = ""


def view_clips(
    runs: Mapping[str, Path], entries: Sequence[VideoEntry], *, other: Restored | None = None
) -> Viewing:
    """The clips, and what all runs make of them.

    Of the first videos that can be read, those are shown whose error at the first run's newest
    checkpoint is lowest, highest, and evenly between.

    Args:
        runs: folders by name, of runs that cut clips in the same way.
        entries: videos to choose from.
        other: checkpoint whose mask is shown beside those of the runs; default: a uniformly
            random one.

    Raises:
        CheckpointError: for a run without a checkpoint, or without a decoder.
        VideoError: when none of the first videos can be read.
    """
    found = [checkpoints_of(run) for run in runs.values()]
    first = open_checkpoint(found[0][-1])
    clips = _chosen(first, entries)
    most = min(max(1, _MOST_LOOKS // (len(runs) * len(clips))), _MOST_CHECKPOINTS)
    found = [_evenly(folders, most) for folders in found]
    looks: list[list[list[Look]]] = [[[] for _ in runs] for _ in clips]
    columns = []
    for at, (name, folders) in enumerate(zip(runs, found, strict=True)):
        steps = []
        for folder in folders:
            try:
                restored = first if folder == found[0][-1] else open_checkpoint(folder)
            except CheckpointError:
                if folder.is_dir():
                    raise
                continue  # the run goes on, and has retired this one meanwhile
            steps.append(int(folder.name.removeprefix("step_")))
            for clip, seen in zip(clips, looks, strict=True):
                seen[at].append(_look(restored, clip))
        columns.append(Column(name, steps))
    return Viewing(
        grid=first.grid,
        columns=columns,
        clips=[_view(clip, seen, first, other) for clip, seen in zip(clips, looks, strict=True)],
        rule=_rule(),
        other_label=f"mask of {other.config.sampler.name}" if other else "random mask",
        is_normalized=first.mae.normalize_targets,
    )


def checkpoints_of(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first.

    Raises:
        CheckpointError: when there is none.
    """
    found = [path for path in candidates(run / "checkpoints") if path.name.startswith("step_")]
    if found:
        return found[::-1]
    raise CheckpointError(
        f"{run} has no checkpoint yet, so there are no masks to show; `tats watch {run}` shows its "
        "metrics, and `tats report` needs the first checkpoint [checkpoint.every_epochs]"
    )


def _evenly(some: Sequence[T], count: int) -> list[T]:
    """So many of them, the first and the last included; the last alone where one is asked for."""
    if count >= len(some):
        return list(some)
    return [some[at] for at in np.linspace(len(some) - 1, 0, count).round().astype(int)[::-1]]


@torch.no_grad()
def _chosen(first: Restored, entries: Sequence[VideoEntry]) -> list[_Clip]:
    """Clips of lowest to highest error under one and the same random mask."""
    ranked: list[tuple[float, _Clip]] = []
    reasons: list[VideoError] = []
    count = num_visible(first.config.sampler, first.grid)
    for entry in entries:
        if len(ranked) == _NUM_CANDIDATES or len(reasons) == _NUM_CANDIDATES:
            break
        try:
            clip = _read(first, entry)
        except VideoError as error:
            reasons.append(error)
            continue
        generator = stream(_SEED, "show", "other")
        drawn = FixedPolicy(first.grid).act(
            first.mae.embed(clip.pixels), count, generator=generator
        )
        ranked.append((float(first.mae(clip.pixels, drawn.visible_idx).loss), clip))
    if not ranked:
        raise reasons[0]
    ranked = _evenly(sorted(ranked, key=lambda pair: pair[0]), _NUM_CLIPS)
    places = ["lowest", *["between"] * (len(ranked) - 2), "highest"][: len(ranked)]
    return [
        replace(clip, why=f"{place}: error {three(float(error))}")
        for place, (error, clip) in zip(places, ranked, strict=True)
    ]


def _read(restored: Restored, entry: VideoEntry) -> _Clip:
    """The middle of a video; alone in its list, so that none is shown in its place."""
    dataset = clip_dataset(restored.config.data, [entry], is_centered=True)
    pixels = dataset[0, 0].pixels.unsqueeze(0)
    moving = dataset.motion(0)
    motion = None if moving is None else torch.from_numpy(token_motion(moving, restored.grid))[None]
    return _Clip(Path(entry.path).name, pixels, motion)


def _rule() -> str:
    return (
        f"Of the first {counted(_NUM_CANDIDATES, 'video')} of the list, the clips are those of "
        "lowest and highest error under a random mask at the newest checkpoint, and those evenly "
        "between."
    )


def _draw(restored: Restored, clip: _Clip, name: str) -> Selection:
    policy = with_motion(restored.policy, clip.motion)
    count = num_visible(restored.config.sampler, restored.grid)
    tokens = restored.mae.embed(clip.pixels)
    return policy.act(tokens, count, generator=stream(_SEED, "show", name))


@torch.no_grad()
def _look(restored: Restored, clip: _Clip) -> Look:
    grid, drawn = restored.grid, _draw(restored, clip, "main")
    found = restored.mae(clip.pixels, drawn.visible_idx)
    visible = is_visible(drawn.visible_idx, grid.num_tokens)[0]
    is_normalized = restored.mae.normalize_targets
    painted = paint(clip.pixels[0], found, visible, grid, is_normalized=is_normalized)
    return Look(
        reconstruction=_frames((255.0 * painted).round().to(torch.uint8)),
        error=lattice(found.error[0], grid),
        probability=lattice(drawn.probability[0], grid),
        visible=lattice(visible, grid),
    )


@torch.no_grad()
def _view(
    clip: _Clip, looks: Sequence[Sequence[Look]], first: Restored, other: Restored | None
) -> ClipView:
    rival = other or replace(first, policy=FixedPolicy(first.grid))
    visible = is_visible(_draw(rival, clip, "other").visible_idx, first.grid.num_tokens)[0]
    moving = None if clip.motion is None else clip.motion[0] >= first.config.eval.moving_share
    return ClipView(
        name=clip.name,
        why=clip.why,
        frames=_frames(clip.pixels[0]),
        looks=looks,
        other_visible=lattice(visible, first.grid),
        moving=None if moving is None else lattice(moving, first.grid),
    )


def _frames(clip: UInt8[Tensor, "C F H W"]) -> Frames:
    frames: np.ndarray = rearrange(clip, "c f h w -> f h w c").numpy()
    return frames
