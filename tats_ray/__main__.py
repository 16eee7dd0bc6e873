"""The `tats` command: carries out what was typed."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

from tats_ray import __version__
from tats_ray.cli import parse
from tats_ray.core.errors import TatsError, UsageError


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `tats` and `python -m tats_ray`: 2 for a wrong request, 1 for a failed run."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"tats {__version__}")
        return
    try:
        command, flags = parse(words)
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
        # `tats ... | head`; what Python flushes at exit must go somewhere, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _is_unread(handle: int) -> bool:
    """Whether the reader of a pipe is gone."""
    poll = select.poll()
    poll.register(handle, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
