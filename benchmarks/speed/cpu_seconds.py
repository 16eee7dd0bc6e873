"""Processor seconds of a command and of every process that it starts, daemons included.

    python benchmarks/speed/cpu_seconds.py make demo

Linux only. Processes that leave their parent, as Ray's do, are adopted and counted until the
command ends. The kernel forgets the time of a process whose parent does not ask for it. So all are
also looked at a few times per second, and of each process the last look counts.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_LOOK_S = 0.2
_PR_SET_CHILD_SUBREAPER = 36
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_Process = tuple[int, int]
"""Number and time of start, which together occur once."""


def looks() -> dict[_Process, float]:
    """Own seconds of all living descendants of this process."""
    found: dict[int, tuple[_Process, float]] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        number = int(folder.name)
        seconds = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        found[number] = (number, int(fields[19])), seconds
        children[int(fields[1])].append(number)
    seen: dict[_Process, float] = {}
    waiting = children[os.getpid()]
    while waiting:
        number = waiting.pop()
        process, seen[process] = found[number]
        waiting += children[number]
    return seen


def measure(command: Sequence[str]) -> float:
    """Run a command; the processor seconds of all its processes.

    Raises:
        CalledProcessError: for a command that fails.
        OSError: for one that cannot be started.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = sum(os.times()[2:4])
    last: dict[_Process, float] = {}
    running = subprocess.Popen(command)
    while running.poll() is None:
        last |= looks()
        time.sleep(_LOOK_S)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    # What the kernel has gathered lacks some processes; the looks lack the end of each.
    return max(sum(os.times()[2:4]) - before, sum(last.values()))


def main() -> None:
    if not sys.argv[1:]:
        print(f"usage: {sys.argv[0]} COMMAND [ARGUMENT ...]", file=sys.stderr)
        sys.exit(2)
    start = time.monotonic()
    try:
        seconds = measure(sys.argv[1:])
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"cpu_seconds: {error}", file=sys.stderr)
        sys.exit(2)
    wall, load = time.monotonic() - start, os.getloadavg()[0]
    print(f"{seconds:.1f} CPU seconds of all processes, {wall:.0f} s, load {load:.1f}")


if __name__ == "__main__":
    main()
