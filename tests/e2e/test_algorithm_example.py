"""An algorithm of another package, by `module:Class`, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.view.tracking import read_metrics

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_algorithm.py"
pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]


def test_the_examples_algorithm_trains_through_the_whole_loop(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "custom_algorithm:CustomAlgorithmConfig, rewarded with token_error" in done.stdout
    report = Path(done.stdout.splitlines()[-1])
    assert report.is_file()
    records = [r for r in read_metrics(report.parent) if "policy/surrogate" in r]
    assert records
    assert all(r["policy/approx_kl"] > 0 for r in records)
    shutil.rmtree(report.parents[1])
