"""A run whose output nobody reads any more goes on; a listing ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.checkpoints import format as checkpoints
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tests.e2e.test_runs import write_config

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=8, num_val=2, num_frames=10, size=32, workers=1)


@pytest.mark.parametrize("how", ["| head -1", ">&-"])
def test_run_goes_on_to_its_last_checkpoint_without_a_reader(
    videos: SyntheticSet, tmp_path: Path, how: str
) -> None:
    config = write_config(tmp_path / "unread.yaml", videos, tmp_path / "runs", epochs=2)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m tats_ray pretrain {config} {how}"],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ("no longer read" in done.stderr) == ("head" in how)
    assert checkpoints.load(tmp_path / "runs" / "unread").position.epoch == 2
