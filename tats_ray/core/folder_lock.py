"""Lock a run folder for one run at a time, even if a process died while holding the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tats_ray.core.errors import UsageError

LOCK_FILE = ".lock"


@contextmanager
def only_run_in(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock, which names host, process and time.

    The kernel lets go of a lock when its process dies, so on one host it tells for certain who is
    alive. Other hosts may see only the file, not the lock: a file of theirs is believed.

    Args:
        wait_s: how long another run has to let go of it.

    Raises:
        UsageError: when another run holds it, with the way out.
    """
    path = folder / LOCK_FILE
    lock = _claim(path, time.monotonic() + wait_s)
    try:
        lock.seek(0)
        lock.truncate()
        json.dump({"host": _host(), "pid": os.getpid(), "started": _started(os.getpid()),
                   "time": time.strftime("%Y-%m-%d %H:%M:%S %z")}, lock)  # fmt: skip
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        lock.close()


def holder_in_words(folder: Path) -> str:
    """Who runs in a folder; empty where nobody does. A lock of another host is believed."""
    try:
        with (folder / LOCK_FILE).open(encoding="utf-8") as lock:
            holder = _read(lock)
    except OSError:
        return ""
    is_here = holder.get("host") == _host()
    started = _started(int(holder.get("pid", 0))) if is_here else None
    if not holder or (is_here and (started is None or started != holder.get("started"))):
        return ""
    return _words(holder)


def _claim(path: Path, deadline: float) -> TextIO:
    """The file, open, locked, and of nobody else who lives."""
    while True:
        try:
            lock = _lock(path)
            try:
                if holder := _read(lock):
                    _take_over(path, holder)
                return lock
            except UsageError:
                lock.close()
                raise
        except UsageError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def _lock(path: Path) -> TextIO:
    """The file, open and locked.

    Raises:
        UsageError: when a living process of this host, or of a file system with locks, has it.
    """
    while True:
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _read(lock)
            lock.close()
            raise UsageError(
                f"{path.parent} is in use by {_words(holder)}; wait for it or stop it, or choose "
                "another --name"
            ) from None
        # Its last holder may have removed the file between our two calls.
        with contextlib.suppress(OSError):
            if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
        lock.close()


def _take_over(path: Path, holder: dict[str, Any]) -> None:
    """The lock is free and the file names somebody: a dead process, or one of another host."""
    if holder.get("host") != _host():
        raise UsageError(
            f"{path.parent} may be in use by {_words(holder)}, another machine; if nothing runs "
            f"there any more, remove {path} and try again"
        )
    started = _started(int(holder.get("pid", 0)))
    if started is not None and started == holder.get("started"):
        raise UsageError(
            f"{path.parent} is in use by {_words(holder)}; wait for it or stop it, or choose "
            "another --name"
        )
    print(f"took over the run folder from {_words(holder)}, which is dead", flush=True)


def _read(lock: TextIO) -> dict[str, Any]:
    lock.seek(0)
    try:
        holder = json.load(lock)
    except ValueError:
        return {}  # empty, or cut off: its writer had only begun
    return holder if isinstance(holder, dict) else {}


def _words(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on host {holder.get('host')} since {holder.get('time')}"


def _host() -> str:
    return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; None when it is gone or unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
