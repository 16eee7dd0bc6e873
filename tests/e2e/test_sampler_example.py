"""A sampler of another package, by `module:Class`: trained, stopped and resumed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.checkpoints.restore import restore
from tats_ray.models.policy import is_learned
from tats_ray.view.tracking import read_metrics
from tests.random_checkpoints import same

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_sampler.py"
pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]


def python(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": _path()},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _path() -> str:
    return os.pathsep.join([str(EXAMPLE.parent), *os.environ.get("PYTHONPATH", "").split(":")])


def test_the_example_trains_its_sampler_and_a_command_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = python(EXAMPLE, cwd=tmp_path)
    assert "sampler custom_sampler:CustomSampler" in said
    run = Path(said.splitlines()[-1]).parent
    assert any(record.get("policy/approx_kl", 0) > 0 for record in read_metrics(run))
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    start = restore(run).policy
    assert is_learned(start)
    assert start.sampler.hidden.out_features == 32  # an option
    assert start.sampler.out.weight.abs().max() > 0  # was initialised to zero
    shutil.rmtree(run / "checkpoints" / "step_00000006")  # of 6; those of step 4 are left
    said = python("-m", "tats_ray", "pretrain", run / "config.yaml", "--resume", cwd=tmp_path)
    assert "step 4" in said
    again = restore(run).policy
    assert is_learned(again)
    assert same(again.state_dict(), start.state_dict())
    shutil.rmtree(run.parent)
