"""Whole clusters in a process namespace of their own: growing and shrinking, and TLS."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import DIES_WITH_US, missing

HERE = Path(__file__).parent
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def alone(script: str, folder: Path, **env: str) -> str:
    """Output of a script that sees no process but its own; they all end with it."""
    if why := missing():
        pytest.fail(why)
    ray_files = Path("/tmp") / f"tca{os.getpid()}"  # short, for the sockets in it
    (ray_files / "ray").mkdir(parents=True)
    spaces = "--pid --fork --kill-child --mount-proc --mount --ipc --net"
    command = f"ip link set lo up; exec {sys.executable} {HERE / script} {folder}"
    try:
        done = subprocess.run(
            [*DIES_WITH_US, "unshare", *spaces.split(), "bash", "-c", command],
            env={
                **os.environ,
                "PYTHONPATH": str(HERE.parents[1]),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_TMPDIR": str(ray_files),
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
    finally:
        shutil.rmtree(ray_files, ignore_errors=True)
    told = [line for line in done.stdout.splitlines() if re.match(r"\[ *\d+ s\]", line)]
    print("\n".join(told), file=sys.stderr, flush=True)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def test_cluster_grows_with_demand_and_shrinks_when_idle_while_a_run_goes_on(
    tmp_path: Path,
) -> None:
    told = alone("autoscaling.py", tmp_path, RAY_AUTH_MODE="disabled")
    assert "waiting up to" in told
    assert "idle, the last worker was removed" in told


def test_nodes_talk_tls_when_they_are_told_to(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    token.write_text("c" * 64)
    folder = tmp_path / "certs"
    told = alone("tls.py", folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    assert "a driver without TLS" in told
