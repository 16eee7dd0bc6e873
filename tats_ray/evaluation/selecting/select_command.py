"""What `tats select` does, from a video to its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.tiny_sampler import KNOWS, tiny_sampler
from tats_ray.core.storage import make_folder
from tats_ray.core.words import counted
from tats_ray.data.decode import probe
from tats_ray.evaluation.selecting.select_frames import TellingFrame, select_frames
from tats_ray.evaluation.selecting.selection_files import write_selection


def select_video(
    video: Path,
    *,
    run: Path | None = None,
    k: int = 8,
    out: Path | None = None,
    mask_ratio: float | None = None,
) -> Iterator[str]:
    """Select, write the files, and say in lines what was found.

    Args:
        run: any checkpoint with a learned sampler; default: the tiny one of the package.
        out: folder; default: `<name of the video>_selected` in the working folder.

    Raises:
        CheckpointError: for what is wrong with a checkpoint.
        VideoError: for a video that cannot be read.
        UsageError: as `select_frames`, and for a folder that cannot be written.
    """
    found = tiny_sampler() if run is None else open_checkpoint(run, need="nothing")
    probe(str(video))  # before a folder is made for it
    folder = make_folder(out or Path(f"{video.stem}_selected"), way_out="use another --out")
    selection = select_frames(found, video, k, mask_ratio=mask_ratio)
    knows = KNOWS if run is None else _learned_from(found.config.data.train_list)
    for frame in sorted(selection.frames, key=lambda frame: frame.rank):
        yield _line(frame)
    for path in write_selection(selection, folder, knows=knows):
        yield str(path)
    if run is None:
        yield KNOWS


def _learned_from(videos: str) -> str:
    return f"the network knows what it saw in {videos}" if videos else ""


def _line(frame: TellingFrame) -> str:
    regions = counted(len(frame.regions), "region")
    share = f"{100 * frame.probability:.3g} % of the probability in {regions}"
    return f"{frame.rank:>4}  {frame.time_s:8.2f} s  frame {frame.frame}, {share}"
