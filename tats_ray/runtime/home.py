"""Relative paths of a configuration begin where the driver stands, on whatever node they are read.

They are not made absolute: a checkpoint keeps its configuration as it was given, and a run goes on
only with the same lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def here() -> str:
    """The folder that a driver tells its processes."""
    return str(Path.cwd())


def go_to(home: str) -> None:
    """Make the driver's folder this process's own: Ray starts it where its node was started.

    Where a node does not have it, as with the upload of a job, or may not enter it, paths begin at
    the node's own.
    """
    with suppress(OSError):
        os.chdir(home)


def call_from(home: str, function: Callable[..., T], *args: object) -> T:
    """Call a function in the driver's folder, in a process that ends with the call."""
    go_to(home)
    return function(*args)
