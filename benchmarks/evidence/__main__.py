"""Runs the study row by row; stopped at any time, the same command goes on.

    python -m tats_ray.benchmarks.evidence [quick|main|longer|ablations ...] [--rows N] [--list]

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
from pathlib import Path

from tats_ray.core.errors import UsageError

from .plan import PARTS, Row, find_row, rows
from .row_files import FOLDER, code_digest, read_rows, to_do
from .run_row import run_row, settings_of

_MODULE = "tats_ray.benchmarks.evidence"
_TIMEOUT_S = 3 * 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rows", type=int, default=0, help="stop after so many; 0 runs all")
    parser.add_argument("--list", action="store_true", help="say what is left and run nothing")
    parser.add_argument("--choose", action="store_true", help="print the table that chooses games")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the rows are")
    args = parser.parse_args()
    # Raised here, so that the row's process ends with this one and not after it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
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
    print(f"{len(wanted)} rows, {len(left)} to run, {old} made by other code", flush=True)
    if args.list:
        for row, why in left:
            print(f"  {row.name}  {why}")
        return 0
    failed = [row for row, _ in left[: args.rows or None] if not _run(row, args.folder)]
    for row in failed:
        print(f"failed: {row.name}; the same command tries it again")
    return 1 if failed else 0


def _run(row: Row, folder: Path) -> bool:
    """One row in a process of its own; True if it has results afterwards."""
    started = time.monotonic()
    print(f"{row.name} ...", flush=True)
    command = [sys.executable, "-m", _MODULE, "--one", row.name, "--folder", str(folder)]
    try:
        done = subprocess.run(command, timeout=_TIMEOUT_S, capture_output=True, text=True)
        is_good, said = done.returncode == 0, (done.stderr or done.stdout).strip()
    except subprocess.TimeoutExpired:
        is_good, said = False, f"took more than {_TIMEOUT_S:g} s"
    print(f"{row.name} {'done' if is_good else 'failed'}, {time.monotonic() - started:.0f} s")
    if not is_good:
        print("\n".join(said.splitlines()[-3:]), flush=True)
    return is_good


if __name__ == "__main__":
    main()
