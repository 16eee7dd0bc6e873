"""Disks without room, of this process alone."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def disk_full_at(name: str) -> Iterator[None]:
    """Text files of this name find no room on the disk, as the last ones of a folder may."""
    write = Path.write_text

    def refuse(path: Path, text: str, **options: Any) -> int:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        yield


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Breaks writes in the middle as a full disk does, and needs no privileges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
