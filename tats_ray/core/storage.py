"""Writes to storage that may refuse them for a while: full, unmounted or read-only."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tats_ray.core.errors import StorageError, UsageError

T = TypeVar("T")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


def persist(
    write: Callable[[], T],
    *,
    what: str,
    retry_s: float,
    on_note: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call `write` until it raises no OSError, with pauses that double up to 30 s.

    Args:
        write: must leave nothing behind when it raises.
        what: names what is written, for messages.
        retry_s: from the first failure on; then it is given up.
        on_note: gets a line when the storage first refuses, and one when it takes the write.

    Raises:
        StorageError: with the last cause, once `retry_s` have passed.
    """
    began: float | None = None
    pause = FIRST_PAUSE_S
    while True:
        try:
            done = write()
        except OSError as error:
            now = clock()
            if began is None:
                began = now
                on_note(f"{what} could not be written: {error}; retrying for {retry_s:g} s")
            left = began + retry_s - now
            if left <= 0:
                raise StorageError(
                    f"{what} could not be written for {retry_s:g} s: {error}; free space or "
                    "remount the storage, then continue with --resume"
                ) from error
            sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            if began is not None:
                on_note(f"{what} was written after {clock() - began:.0f} s")
            return done


def sync_file(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_text(path: Path, text: str) -> None:
    """A whole file takes the place of a whole file, also when the machine stops half-way."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        sync_file(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_file(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path`, of the same ending, to write; it gets the name once it is whole.

    Raises:
        UsageError: in one line, where the storage refuses.
    """
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.draft{path.suffix}")
    try:
        yield draft
        sync_file(draft)
        draft.replace(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror or error}); free space, or write elsewhere"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to write into; it gets the name once all is written.

    On any error it is removed, so that nothing stands in the way of a second try.

    Raises:
        OSError: when the storage refuses.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.draft")
    try:
        draft.mkdir(parents=True)
        yield draft
        for written in (*draft.rglob("*"), draft):
            sync_file(written)
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_file(path.parent)


def follow_umask(path: Path) -> None:
    """Give a file the mode of any other new file; safetensors makes them for their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def make_folder(path: Path, *, way_out: str = "choose another path") -> Path:
    """A folder that is there and takes files; called before long work whose results go into it.

    Raises:
        UsageError: when it cannot be made or written, in one line with the reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        marker = path / f".writable-{os.getpid()}"
        marker.write_text("")
        marker.unlink()
    except OSError as error:
        where = "written" if path.is_dir() else "made"
        raise UsageError(
            f"folder {path} cannot be {where} ({error.strerror}); {way_out}"
        ) from error
    return path


def make_once(
    out: Path,
    spec: Mapping[str, Any],
    write: Callable[[Path], None],
    *,
    spec_file: str,
    what: str,
) -> None:
    """Have `write` fill a folder that appears complete or not at all, and once for a `spec`.

    Args:
        out: a folder that is new, empty, or holds what this very spec gave.
        spec: all that the files depend on; it is stored with them.
        write: called with a hidden folder beside `out`, unless all is there.
        spec_file: name of the file with the spec.
        what: names the content, such as "synthetic set".

    Raises:
        UsageError: for a folder with something else in it, or on a disk without room.
    """
    if _holds(out, spec, spec_file, what):
        return
    make_folder(out.parent)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        write(partial)
        (partial / spec_file).write_text(json.dumps(spec, indent=1) + "\n")
        partial.replace(out)
    except OSError as error:
        if out.is_dir() and _holds(out, spec, spec_file, what):
            return  # another process has made it meanwhile
        raise UsageError(
            f"{out} cannot be written ({error.strerror or error}); free space or choose another "
            "folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _holds(out: Path, spec: Mapping[str, Any], spec_file: str, what: str) -> bool:
    """Whether `out` holds what `spec` gives; False when there is nothing yet."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / spec_file).read_text())
    except (OSError, ValueError):
        raise UsageError(f"{out} holds something other than a {what}; name a new folder") from None
    if found != spec:
        raise UsageError(
            f"{out} holds another {what}, {json.dumps(found)}; name a new folder, "
            "or delete this one"
        )
    return True
