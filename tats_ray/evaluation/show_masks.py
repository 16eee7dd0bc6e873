"""`tats show-masks`: what a checkpoint looks at in a video, in six rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tats_ray.checkpoints.folders import kept
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.core.storage import make_folder, whole_file
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.motion import token_motion
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.oracle import with_motion
from tats_ray.models.zoo import num_visible
from tats_ray.ops.selection import is_visible
from tats_ray.view.curves import DARK
from tats_ray.view.mask_panel import MaskPanel, as_pixels, build_panel, draw_masks, one_by_one
from tats_ray.view.progress import VideoCount

_FILMS = (".gif", ".mp4")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".pdf", ".svg", *_FILMS)
"""Of the files that can be written; the last two are animations."""
_LISTS = (".csv", ".txt")
_SLOTS_PER_S = 2
_CHECKPOINTS_PER_S = 1
_SEED = 0


def show_masks(
    checkpoint: str | Path,
    video: str | Path,
    out: str | Path,
    *,
    compare: str | Path | None = None,
    mask_ratio: float | None = None,
    over_training: bool = False,
) -> Path:
    """Draw frames, reconstruction, error, sampling probability and masks of a video's middle clip.

    Args:
        video: or a list of videos, which a film shows one after the other.
        out: file to write, replaced if it exists: a picture, or a film of the time slots.
        compare: checkpoint whose mask is the last row, AdaMAE's in the paper; default: a
            uniformly random mask.
        mask_ratio: other than the checkpoint's own.
        over_training: film all time slots under one kept checkpoint of the run after the other.

    Raises:
        CheckpointError: for what is wrong with a checkpoint.
        VideoError: for a video that cannot be read.
        UsageError: for an `out` that is a folder, cannot be written, or has another ending; for a
            list, or more than one checkpoint, where `out` is no film.
    """
    out, video = Path(out), Path(video)
    is_list = video.suffix.lower() in _LISTS
    _check_name(out, video, is_list=is_list, over_training=over_training)
    videos = [entry.path for entry in read_list(video)] if is_list else [str(video)]
    folders = _trained(checkpoint) if over_training else [Path(checkpoint)]
    main = open_checkpoint(folders[-1])
    other = open_checkpoint(compare) if compare else None
    if other is not None and other.grid != main.grid:
        raise UsageError(f"{compare} cuts clips as {other.grid}, {checkpoint} as {main.grid}")
    make_folder(out.parent, way_out="use another --out")
    if over_training:
        panels = [
            _titled(panel_of(open_checkpoint(folder), video, other, mask_ratio), folder)
            for folder in folders
        ]
        tops = np.max([panel.own_tops() for panel in panels], axis=0)
        shared = [replace(panel, tops=(float(tops[0]), float(tops[1]))) for panel in panels]
        _write_film(map(_all_slots, shared), out, _CHECKPOINTS_PER_S)
    elif is_list:
        _write_film(_in_turn(main, videos, other, mask_ratio), out, _SLOTS_PER_S)
    else:
        draw_panel(main, video, out, other=other, mask_ratio=mask_ratio)
    return out


def _check_name(out: Path, video: Path, *, is_list: bool, over_training: bool) -> None:
    if out.resolve() == video.resolve():
        raise UsageError(f"--out {out} is the video itself; use another name")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it, such as {out}/masks.png")
    if out.suffix.lower() not in ENDINGS:
        what = f"ends in {out.suffix}" if out.suffix else "has no ending"
        raise UsageError(
            f"--out {out} {what}, which does not say what to write; use {', '.join(ENDINGS)}"
        )
    if is_list and over_training:
        raise UsageError(f"--over-training films one video, and {video} is a list; name a video")
    if (is_list or over_training) and out.suffix.lower() not in _FILMS:
        what = f"the videos of {video}" if is_list else "the checkpoints of a run"
        raise UsageError(f"--out {out} is one picture; {what} need a film, --out masks.mp4 or .gif")


def _trained(run: str | Path) -> list[Path]:
    folders = kept(run)
    if len(folders) < 2:
        raise UsageError(
            f"{run} has kept one checkpoint, and a film over training needs two or more; "
            "train with a larger --checkpoint.keep_last"
        )
    return folders


def _titled(panel: MaskPanel, folder: Path) -> MaskPanel:
    step = int(folder.name.strip(".").split("_")[1].partition(".")[0])
    return replace(panel, title=f"step {step}, {panel.title}")


def _all_slots(panel: MaskPanel) -> UInt8[np.ndarray, "H W 3"]:
    return as_pixels(draw_masks(panel, None))


def _in_turn(
    main: Restored, videos: Sequence[str], other: Restored | None, mask_ratio: float | None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Pictures of the slots of one video after the other."""
    count = VideoCount()
    for done, video in enumerate(videos, start=1):
        yield from one_by_one(panel_of(main, video, other, mask_ratio))
        count(done, len(videos))


def _write(panel: MaskPanel, out: Path) -> None:
    """A picture of all time slots, or an animation of one after the other."""
    if out.suffix.lower() in _FILMS:
        _write_film(one_by_one(panel), out, _SLOTS_PER_S)
    else:
        with whole_file(out) as draft:
            draw_masks(panel, draft)


def _write_film(
    pictures: Iterable[UInt8[np.ndarray, "H W 3"]], out: Path, pictures_per_s: int
) -> None:
    with whole_file(out) as draft:
        if out.suffix.lower() == ".mp4":
            write_video(draft, pictures, fps=pictures_per_s)
        else:
            frames = map(Image.fromarray, pictures)
            next(frames).save(
                draft, save_all=True, append_images=frames, duration=1000 // pictures_per_s, loop=0
            )


def _of_whom(found: Restored) -> str:
    """Run and step, or the file that they stand in for."""
    return f", {found.origin.removeprefix('tats_ray ').partition(':')[0]}"


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
    panel = panel_of(main, video, other, mask_ratio)
    _write(panel, out)
    if dark is not None:
        draw_masks(panel, dark, theme=DARK)


@torch.no_grad()
def panel_of(
    main: Restored,
    video: str | Path,
    other: Restored | None = None,
    mask_ratio: float | None = None,
) -> MaskPanel:
    """What the networks make of the middle clip of a video; arguments as `draw_panel`."""
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
    return build_panel(
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
