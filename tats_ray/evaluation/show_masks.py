"""`tats show-masks`: what a checkpoint looks at in a video, in six rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.core.storage import make_folder
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import token_motion
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.oracle import with_motion
from tats_ray.models.zoo import num_visible
from tats_ray.ops.selection import is_visible
from tats_ray.view.curves import DARK
from tats_ray.view.mask_panel import MaskPanel, build_panel, draw_masks, one_by_one

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".pdf", ".svg", ".gif", ".mp4")
"""Of the files that can be written; the last two are animations."""
_SLOTS_PER_S = 2
_SEED = 0


def show_masks(
    checkpoint: str | Path,
    video: str | Path,
    out: str | Path,
    *,
    compare: str | Path | None = None,
    mask_ratio: float | None = None,
) -> Path:
    """Draw frames, reconstruction, error, sampling probability and masks of a video's middle clip.

    Args:
        out: file to write, replaced if it exists: a picture, or an animation of the time slots.
        compare: checkpoint whose mask is the last row, AdaMAE's in the paper; default: a
            uniformly random mask.
        mask_ratio: other than the checkpoint's own.

    Raises:
        CheckpointError: for what is wrong with a checkpoint.
        VideoError: for a video that cannot be read.
        UsageError: for an `out` that is a folder, cannot be written, or has another ending.
    """
    out = Path(out)
    _check_name(out, Path(video))
    main = open_checkpoint(checkpoint)
    other = open_checkpoint(compare) if compare else None
    if other is not None and other.grid != main.grid:
        raise UsageError(f"{compare} cuts clips as {other.grid}, {checkpoint} as {main.grid}")
    make_folder(out.parent, way_out="use another --out")
    draw_panel(main, video, out, other=other, mask_ratio=mask_ratio)
    return out


def _check_name(out: Path, video: Path) -> None:
    if out.resolve() == video.resolve():
        raise UsageError(f"--out {out} is the video itself; use another name")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it, such as {out}/masks.png")
    if out.suffix.lower() not in ENDINGS:
        what = f"ends in {out.suffix}" if out.suffix else "has no ending"
        raise UsageError(
            f"--out {out} {what}, which does not say what to write; use {', '.join(ENDINGS)}"
        )


def _write(panel: MaskPanel, out: Path) -> None:
    """A picture of all time slots, or an animation of one after the other."""
    ending = out.suffix.lower()
    if ending == ".mp4":
        write_video(out, one_by_one(panel), fps=_SLOTS_PER_S)
    elif ending == ".gif":
        first, *others = (Image.fromarray(picture) for picture in one_by_one(panel))
        first.save(out, save_all=True, append_images=others, duration=1000 // _SLOTS_PER_S, loop=0)
    else:
        draw_masks(panel, out)


def _of_whom(found: Restored) -> str:
    """Run and step, or the file that they stand in for."""
    return f", {found.origin.removeprefix('tats_ray ').partition(':')[0]}"


@torch.no_grad()
def draw_panel(
    main: Restored,
    video: str | Path,
    out: Path,
    *,
    other: Restored | None = None,
    mask_ratio: float | None = None,
    dark: Path | None = None,
) -> None:
    """The picture itself, from networks that are already here.

    Args:
        dark: the same picture for dark pages.
    """
    entries = [VideoEntry(str(video), None)]
    dataset = clip_dataset(main.config.data, entries, is_centered=True)
    clips = dataset[0, 0].pixels.unsqueeze(0)
    ratio = main.config.sampler.mask_ratio if mask_ratio is None else mask_ratio
    count = num_visible(main.config.sampler, main.grid, ratio)
    tokens = main.mae.embed(clips)
    pixels_moving = dataset.motion(0)
    motion, moving = None, None
    if pixels_moving is not None:
        shares = token_motion(pixels_moving, main.grid)
        motion, moving = (
            torch.from_numpy(shares)[None],
            np.asarray(shares >= main.config.eval.moving_share),
        )
    policy = with_motion(main.policy, motion)
    selection = policy.act(tokens, count, generator=stream(_SEED, "show", "main"))
    rival: MaskPolicy = FixedPolicy(main.grid)
    rival_tokens, rival_count, rival_name = tokens, count, "uniformly random"
    if other is not None:
        rival, rival_tokens = with_motion(other.policy, motion), other.mae.embed(clips)
        # Tubes and frames round to whole ones, each sampler in its own way.
        rival_count = num_visible(other.config.sampler, other.grid, ratio)
        rival_name = f"{other.config.sampler.name}{_of_whom(other)}"
    rival_draw = rival.act(rival_tokens, rival_count, generator=stream(_SEED, "show", "other"))
    panel = build_panel(
        clip=clips[0],
        reconstruction=main.mae(clips, selection.visible_idx),
        log_prob=selection.log_prob[0],
        visible_idx=selection.visible_idx[0],
        grid=main.grid,
        other_visible=is_visible(rival_draw.visible_idx, main.grid.num_tokens)[0],
        label=f"mask: {main.config.sampler.name}{_of_whom(main) * (other is not None)}",
        other_label=f"mask: {rival_name}",
        moving=moving,
        is_normalized=main.mae.normalize_targets,
        title=f"{Path(video).name}: {count} of {main.grid.num_tokens} tokens visible",
    )
    _write(panel, out)
    if dark is not None:
        draw_masks(panel, dark, theme=DARK)
