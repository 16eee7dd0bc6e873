"""Ends whatever a private Ray leaves behind when its driver is killed.

Ray's own server processes die with the driver, but their helpers (the dashboard's agent, the agent
of runtime environments) live on for a minute or longer. So the driver starts a small process that
waits on a pipe whose other end the driver alone holds. However the driver ends, the kernel closes
the pipe. All processes of the private Ray carry a mark in their environment, and whoever still
carries it after a moment is killed.

This file is also that small process, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "TATS_PRIVATE_RAY"
GRACE_S = 2.0
"""For processes that are about to end by themselves."""
_LAST_S = 20.0


@contextmanager
def watched() -> Iterator[None]:
    """Processes that are started with the mark do not outlive this one, nor the context.

    The mark stands in the environment from the beginning. Once Ray is up, `unmark` removes it, so
    that whatever else is started is left alone.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, "-I", "-S", __file__, f"{MARK}={mark}"]
    # In a session of its own, where neither Ctrl-C nor a closed terminal reaches it.
    dog = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    os.environ[MARK] = mark
    try:
        yield
    finally:
        unmark()
        with suppress(subprocess.TimeoutExpired):  # a forked child may hold the pipe, too
            dog.communicate(timeout=_LAST_S + GRACE_S)


def unmark() -> None:
    """Let processes that are started from now on live as long as they like."""
    os.environ.pop(MARK, None)


def end_marked(mark: str) -> None:
    """Wait a moment for all processes that carry a mark, then kill those that are left."""
    began = time.monotonic()
    while (alive := _marked(mark)) and time.monotonic() < began + _LAST_S:
        if time.monotonic() > began + GRACE_S:
            for process in alive:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


def _marked(mark: str) -> list[int]:
    """Processes with the mark in the environment that they were started with."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


if __name__ == "__main__":
    sys.stdin.buffer.read()  # until the driver is gone
    end_marked(sys.argv[1])
