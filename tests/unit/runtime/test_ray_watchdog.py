"""Nothing of a private Ray outlives its driver, however that one ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

DRIVER = """
import os, signal, subprocess, sys
from tats_ray.runtime.driver.ray_watchdog import watched

with watched():
    print(subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=2).pid, flush=True)
    if sys.argv[1]:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have set another one
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""


def is_alive(process: int) -> bool:
    """Not gone, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", ["SIGKILL", "SIGHUP", ""])
def test_processes_of_a_driver_end_with_it_and_others_do_not(number: str) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, number],
            stdout=subprocess.PIPE,
            text=True,
            timeout=100,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        process = int(done.stdout)
        deadline = time.monotonic() + 60
        while is_alive(process):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert is_alive(other.pid)
        assert (done.returncode == 0) == (number == "")
    finally:
        other.kill()
        other.wait()
