"""Runs the study row by row; stopped at any time, the same command goes on.

    python -m tats_ray.benchmarks.evidence [quick|main|longer|ablations ...] [--rows N] [--jobs N]

Each row is a process of its own. What it found becomes one JSON file in
`benchmarks/results/evidence`, which belongs into the repository, and a row that is there is not
run again.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted

from .plan import PARTS, StudyRow, find_row, rows
from .row_files import FOLDER, code_digest, read_rows, to_do
from .run_row import run_row, settings_of

_MODULE = "tats_ray.benchmarks.evidence"
_TIMEOUT_S = 3 * 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rows", type=int, default=0, help="stop after so many; 0 runs all")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time, a core each")
    parser.add_argument("--list", action="store_true", help="say what is left and run nothing")
    parser.add_argument("--choose", action="store_true", help="measure which games are asked")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the rows are")
    args = parser.parse_args()
    try:
        if args.one:
            run_row(find_row(args.one), args.folder)
        elif args.choose:
            from .choosing import choose

            choose()
        else:
            raise SystemExit(_go_on(args))
    except UsageError as error:
        raise SystemExit(f"evidence: {error}") from None


def _go_on(args: argparse.Namespace) -> int:
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        raise UsageError(f"no part is called {unknown[0]!r}; known: {', '.join(PARTS)}")
    wanted = dict.fromkeys(row for part in args.parts or PARTS for row in rows(part))
    done, code = read_rows(args.folder), code_digest()
    left = list(to_do([(row, settings_of(row)) for row in wanted], done, code))
    old = sum(row.name in done and done[row.name].code != code for row in wanted)
    print(
        f"{counted(len(wanted), 'row')}, {len(left)} to run, {old} made by other code", flush=True
    )
    if args.list:
        for row, why in left:
            print(f"  {row.name}  {why}")
        return 0
    now, processes = [row for row, _ in left[: args.rows or None]], _Processes(args.folder)
    signal.signal(signal.SIGTERM, processes.stop)
    with ThreadPoolExecutor(args.jobs) as pool:
        good = list(pool.map(processes.run, now))
    failed = [row for row, is_good in zip(now, good, strict=True) if not is_good]
    for row in failed:
        print(f"failed: {row.name}; the same command tries it again")
    return 1 if failed else 0


class _Processes:
    """One process for each row; none outlives this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: set[subprocess.Popen[str]] = set()
        self.is_stopped = False

    def run(self, row: StudyRow) -> bool:
        """A whole row; True if it has results afterwards."""
        if self.is_stopped:
            return False
        started = time.monotonic()
        command = [sys.executable, "-m", _MODULE, "--one", row.name, "--folder", str(self.folder)]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
            self.running.add(process)
            try:
                _, said = process.communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                said = f"took more than {_TIMEOUT_S:g} s"
            self.running.remove(process)
        is_good = process.returncode == 0
        took = f"{time.monotonic() - started:.0f} s"
        print(f"{row.name} {'done' if is_good else 'failed'}, {took}", flush=True)
        if not is_good:
            print("\n".join(said.strip().splitlines()[-3:]), flush=True)
        return is_good

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Of SIGTERM: end the rows under way, which begin anew next time, and this process."""
        self.is_stopped = True
        for process in [*self.running]:
            process.terminate()
        sys.exit(128 + number)


if __name__ == "__main__":
    main()
