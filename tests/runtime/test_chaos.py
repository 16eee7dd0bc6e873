"""The short form of `make chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.chaos import faults_of

ROOT = Path(__file__).parents[2]
SHORT = "--seconds 60 --every 10 --learners 1 --epochs 12 --pace-s 0.1 --seed 1"
pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--overlapped"],
        ["--inside", "--learners", "2"],
        ["--grouped", "--learners", "2"],
    ],
)
def test_run_whose_processes_are_killed_at_random_ends_as_if_nothing_had_happened(
    more: list[str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.chaos", *SHORT.split(), *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert "RESULT " in done.stdout, done.stdout + done.stderr
    result = json.loads(done.stdout.rpartition("RESULT ")[2].splitlines()[0])
    assert faults_of(result) == [], done.stdout
    assert done.returncode == 0
    assert len(result["killed"]) >= 3
    assert result["restarts"] >= 1
