"""`tats show-masks`: what a checkpoint looks at in a video, in six rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import token_motion
from tats_ray.evaluation.mask_evaluator import MOVING_SHARE
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.oracle import with_motion
from tats_ray.models.zoo import num_visible
from tats_ray.ops.selection import is_visible
from tats_ray.view.mask_panel import build_panel, draw_masks

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
        out: PNG to write.
        compare: checkpoint whose mask is the last row, AdaMAE's in the paper; default: a
            uniformly random mask.
        mask_ratio: other than the checkpoint's own.

    Raises:
        CheckpointError: for what is wrong with a checkpoint.
        VideoError: for a video that cannot be read.
    """
    main = open_checkpoint(checkpoint)
    other = open_checkpoint(compare) if compare else None
    if other is not None and other.grid != main.grid:
        raise UsageError(f"{compare} cuts clips as {other.grid}, {checkpoint} as {main.grid}")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_panel(main, video, out, other=other, mask_ratio=mask_ratio)
    return out


@torch.no_grad()
def draw_panel(
    main: Restored,
    video: str | Path,
    out: Path,
    *,
    other: Restored | None = None,
    mask_ratio: float | None = None,
) -> None:
    """The picture itself, from networks that are already here."""
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
        motion, moving = torch.from_numpy(shares)[None], np.asarray(shares >= MOVING_SHARE)
    policy = with_motion(main.policy, motion)
    selection = policy.act(tokens, count, generator=stream(_SEED, "show", "main"))
    rival: MaskPolicy = FixedPolicy(main.grid)
    rival_tokens, rival_count, rival_name = tokens, count, "uniformly random"
    if other is not None:
        rival, rival_tokens = with_motion(other.policy, motion), other.mae.embed(clips)
        # Tubes and frames round to whole ones, each sampler in its own way.
        rival_count = num_visible(other.config.sampler, other.grid, ratio)
        rival_name = other.config.sampler.name
    rival_draw = rival.act(rival_tokens, rival_count, generator=stream(_SEED, "show", "other"))
    panel = build_panel(
        clip=clips[0],
        reconstruction=main.mae(clips, selection.visible_idx),
        log_prob=selection.log_prob[0],
        visible_idx=selection.visible_idx[0],
        grid=main.grid,
        other_visible=is_visible(rival_draw.visible_idx, main.grid.num_tokens)[0],
        label=f"mask: {main.config.sampler.name}",
        other_label=f"mask: {rival_name}",
        moving=moving,
        is_normalized=main.mae.normalize_targets,
        title=f"{Path(video).name}: {count} of {main.grid.num_tokens} tokens visible",
    )
    draw_masks(panel, out)
