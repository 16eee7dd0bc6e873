"""Where a run lies, and that nobody else writes there meanwhile."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError


def run_folder(config: RunConfig) -> Path:
    if not config.name or "/" in config.name:
        raise UsageError(f"name {config.name!r} is no folder name; use --name NAME")
    return Path(config.checkpoint.folder) / config.name


@contextmanager
def only_run_in(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock, so that two runs cannot write into it.

    Args:
        wait_s: how long another process has to let go of it.

    Raises:
        UsageError: when another process holds it.
    """
    deadline = time.monotonic() + wait_s
    with (folder / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                raise UsageError(
                    f"another process is running in {folder}; wait for it, or choose another --name"
                ) from None
            break
        yield
