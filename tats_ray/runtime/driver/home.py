"""Relative paths of a configuration start from the driver's folder, on every node.

They are not made absolute: a checkpoint keeps its configuration as it was given, and a run goes on
only with the same lists.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def here() -> str:
    """The folder that a driver tells its processes."""
    return str(Path.cwd())


def go_to(home: str, data: Mapping[str, Any] | None = None) -> str | None:
    """Make the driver's folder this process's own: Ray starts it where its node was started.

    Where a node does not have it, or may not enter it, paths begin at the node's own.

    Args:
        data: of the configuration, with the paths that this process reads.

    Returns:
        What to tell people, where the folder cannot be entered and one of the paths begins there.
    """
    try:
        os.chdir(home)
    except OSError as error:
        paths = [(data or {}).get(name) for name in ("root", "train_list", "val_list", "cache")]
        for path in filter(None, paths):
            if not Path(path).is_absolute():
                return (
                    f"{socket.gethostname()} cannot enter {home} ({error.strerror}); {path} starts "
                    f"in its {Path.cwd()}"
                )
    return None


def call_from(home: str, function: Callable[..., T], *args: object) -> T:
    """Call a function in the driver's folder, in a process that ends with the call."""
    go_to(home)
    return function(*args)
