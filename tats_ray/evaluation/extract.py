"""`tats extract`: features of the videos of a list, in a safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tats_ray import __version__
from tats_ray.checkpoints.open import resolve_path
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder
from tats_ray.core.words import counted
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.encoder import open_encoder
from tats_ray.evaluation.feature_cache import write
from tats_ray.evaluation.features import FeatureRequest, Pool, compute


def say(text: str, what: str = "features") -> None:
    print(f"{what:>14}  {text}", flush=True)


def warn(text: str) -> None:
    print(f"{'NOTE':>14}  {text}", flush=True)


def extract(
    checkpoint: str | Path,
    list_path: str | Path,
    out: str | Path,
    *,
    plan: ViewPlan,
    options: EncoderOptions,
    root: str | Path | None = None,
    pool: Pool = "mean",
) -> Path:
    """Write `features` (n V D, or n V N D for tokens), `labels` (-1: unknown) and `index`.

    The metadata's `about` is JSON: paths, settings, and what could not be read.

    Args:
        root: what relative paths in the list are relative to; default: its folder.

    Raises:
        UsageError, VideoError: see `learning.features.compute`.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} must end in .safetensors")
    checkpoint = resolve_path(checkpoint)
    source = open_encoder(checkpoint, options)
    say(source.words, "encoder")
    rows = read_list(list_path, root=root)
    entries = without_repeats(rows, str(list_path))
    request = FeatureRequest(source=source, entries=entries, plan=plan, pool=pool)
    refuse_too_large(request, options.max_gb)
    make_folder(out.parent)
    found = compute(request, num_workers=options.workers, say=say)
    for reason in found.unreadable:
        warn(f"left out: {reason}")
    kept = [entries[at] for at in found.index.tolist()]
    labels = torch.tensor([-1 if entry.label is None else entry.label for entry in kept])
    about = {
        "list": str(list_path),
        "checkpoint": str(checkpoint),
        **source.about(),
        "tats_ray": __version__,
        "torch": torch.__version__,
        "paths": [full_path(entry) for entry in kept],
        **request.settings(),
    }
    write(out, found, about, labels=labels)
    return out


def full_path(entry: VideoEntry) -> str:
    """What a video is known by; bare names can collide."""
    return str(Path(entry.path).resolve())


def without_repeats(entries: Sequence[VideoEntry], source: str) -> list[VideoEntry]:
    """Each video once; says how many repeats were left out.

    Raises:
        UsageError: when a video is there with two labels.
    """
    seen: dict[str, VideoEntry] = {}
    for entry in entries:
        first = seen.setdefault(full_path(entry), entry)
        if first.label != entry.label:
            raise UsageError(
                f"{source}: {entry.path} has the labels {first.label} and {entry.label}; keep one"
            )
    if len(seen) < len(entries):
        warn(f"{source}: left out {counted(len(entries) - len(seen), 'repeated video')}")
    return list(seen.values())


def refuse_too_large(request: FeatureRequest, max_gb: float) -> None:
    """Features are held in memory.

    Raises:
        UsageError: when that would be too much of it.
    """
    size = request.num_bytes / 1e9
    if size > max_gb:
        raise UsageError(
            f"features of {counted(len(request.entries), 'video')}, {request.plan} views, would "
            f"take {size:.1f} GB; the limit is {max_gb:g}: raise --max-gb, or take fewer views, "
            "fewer videos, or mean instead of tokens"
        )
