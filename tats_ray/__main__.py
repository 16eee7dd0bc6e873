"""The `tats` command: carries out what was typed."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from io import TextIOBase
from pathlib import Path
from typing import TextIO, TypeVar

from tats_ray import __version__
from tats_ray.cli import parse
from tats_ray.core.errors import TatsError, UsageError

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `tats` and `python -m tats_ray`: 2 for a wrong request, 1 for a failed run."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    _search_here()
    if words == ["--version"]:
        print(f"tats {__version__}")
        return
    try:
        command, flags = parse(words)
        if command.outlives_reader:
            with redirect_stdout(LastingOutput(sys.stdout)):
                command.run(flags)
        else:
            command.run(flags)
        sys.stdout.flush()
    except TatsError as error:
        print(f"tats: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise
        _to_nowhere(sys.stdout.fileno())  # what Python flushes at exit must go somewhere, too
        sys.exit(141)


class LastingOutput(TextIOBase):
    """Standard output of a run, which continues silently once its reader is gone.

    `tats pretrain ... | head` wants to see less, not to lose a night of training.
    """

    def __init__(self, stream: TextIOBase | TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def _try(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a closed pipe, a closed terminal
                raise
            _to_nowhere(self._stream.fileno())
            with suppress(OSError):
                print("tats: the output is no longer read; the run continues", file=sys.stderr)
            return None


def _search_here() -> None:
    """Find modules in the current folder, as `python -m` does; Ray has its workers do so, too."""
    with suppress(OSError):  # the folder may be gone
        if not {"", str(Path.cwd())} & {*sys.path}:
            sys.path.append(str(Path.cwd()))


def _open_closed_streams() -> None:
    """Python has None in place of a stream that was closed, as by `>&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for good


def _to_nowhere(handle: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), handle)


def _is_unread(handle: int) -> bool:
    """Whether the reader of a pipe is gone."""
    poll = select.poll()
    poll.register(handle, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
