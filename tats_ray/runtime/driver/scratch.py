"""Folder for temporary files that another process can clear, as a killed one cannot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_files_of(run_id: str, rank: int) -> Iterator[None]:
    """Temporary files of this process and of those that it starts go into a folder of the rank's.

    The next incarnation of the rank empties it; video loaders, for one, leave a folder each when
    they are killed.
    """
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.gettempdir()) / f"tats-{run_id}-{rank}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def clear(run_id: str) -> None:
    """Remove what the ranks of a run left on this node, where the last of them were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"tats-{run_id}-*"):
        shutil.rmtree(folder, ignore_errors=True)
