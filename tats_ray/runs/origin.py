"""When, where and by which code something was made, for whoever finds it later."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from tats_ray import __version__
from tats_ray.core.words import counted
from tats_ray.runtime.resources.placement import usable_cores
from tats_ray.view.progress import format_duration
from tats_ray.view.records import Record


def origin() -> dict[str, str]:
    """Which code runs: version, and commit where it is a checkout."""
    here = Path(__file__).parents[2]
    found = {"version": __version__, "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    if (here / ".git").exists() and (commit := _git(here, "rev-parse", "HEAD")):
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
        found["commit"] = commit + (" with local changes" if changed else "")
    return found


def about_run(metrics: Sequence[Record], *, is_here: bool = True) -> list[tuple[str, str]]:
    """What a report says of when, where and by which code a run was made.

    Args:
        is_here: it has just ended on this machine; else only the report is of this machine.
    """
    code = origin()
    gpus = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    cores = counted(usable_cores(), "core")
    machine = f"{platform.node()}, {platform.system()} {platform.machine()}, {cores}"
    libraries = [f"{name} {version(name)}" for name in ("torch", "ray")]
    rows = [
        ("machine", ", ".join([machine, *gpus])),
        (
            "tats_ray",
            ", commit ".join(code[name] for name in ("version", "commit") if name in code),
        ),
        ("versions", ", ".join([f"Python {platform.python_version()}", *libraries])),
    ]
    if not is_here:
        rows = [(f"report: {what}", value) for what, value in rows]
    times = [record["time"] for record in metrics]
    if not times:
        return rows
    first, last = (
        time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(at)) for at in (times[0], times[-1])
    )
    took = format_duration(times[-1] - times[0])
    return [("first record", first), ("last record", f"{last}, {took} later"), *rows]


def _git(here: Path, *words: str) -> str:
    """What git says; nothing where there is none, or it takes too long."""
    command = ["git", "-C", str(here), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
