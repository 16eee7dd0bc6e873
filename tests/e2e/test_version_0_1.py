"""What version 0.1 wrote is opened, continued and reported as that version did it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tats_ray
from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.view.tracking import read_metrics

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests" / "data" / "version_0_1" / "runs.tar.xz"
SPEED = ("time/", "wait/", "data/")


def in_ray(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.long(pytest.mark.ray(pytest.mark.timeout(600)(test)))


def tats(folder: Path, *words: str) -> str:
    """The output of a command that runs in `folder`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tats_ray", *words],
        cwd=folder,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with the runs and, made again, their videos."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    sizes = "--num-train 16 --num-val 4 --num-frames 10 --size 32 --seed 3"
    tats(tmp_path, "data", "synth", "data", *sizes.split())
    return tmp_path


def measured(run: Path) -> dict[tuple[int, str], float]:
    """Every metric but those of the machine's speed, by step and name."""
    return {
        (int(record["step"]), name): value
        for record in read_metrics(run)
        for name, value in record.items()
        if name != "time" and not name.startswith(SPEED)
    }


def test_its_checkpoints_are_opened_and_described(old: Path) -> None:
    video = next((old / "data" / "val").glob("*.mp4"))
    assert tats_ray.load(old / "runs" / "old").encode(video).shape == (1, 128)
    assert tats_ray.load(old / "runs" / "ft").classify(video).shape == (1, 8)
    weights = load_file(old / "runs/old/checkpoints/step_00000008/mae.safetensors")
    scorer = FrozenScorer.load(old / "runs" / "old")
    for name, weight in scorer.mae.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    text = tats(old, "ckpt", "inspect", "runs/old")
    assert "run folder (step_00000008)" in text


@in_ray
def test_its_pretraining_goes_on_to_the_numbers_it_had_then(old: Path) -> None:
    run = old / "runs" / "old"
    then = measured(run)
    assert max(step for step, _ in then) == 16
    text = tats(old, "pretrain", "runs/old/config.yaml", "--resume")
    assert "RESUMED from step 8" in text
    now = measured(run)
    assert then.keys() <= now.keys()
    added = {name for _, name in now.keys() - then.keys()}
    assert added == {"eval/mean_error", "eval/error_tokens"}
    for key, value in then.items():
        assert now[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@in_ray
def test_its_fine_tuning_goes_on_to_the_weights_it_had_then_and_is_tested(old: Path) -> None:
    run = old / "runs" / "ft"
    folder = run / "checkpoints"
    before = load_file(folder / "step_00000004" / "classifier.safetensors")
    text = tats(old, "finetune", "runs/old", "--config", "runs/ft/config.yaml", "--resume")
    assert "RESUMED from step 4" in text
    now = load_file(folder / "step_00000008" / "classifier.safetensors")
    for name, then in load_file(old / "expected" / "ft_step_00000008.safetensors").items():
        change = (then - before[name]).norm()
        assert change > 0
        # In bfloat16, another processor rounds otherwise.
        assert (now[name] - then).norm() < 0.1 * change, name
    tats(old, "test", "runs/ft", "--list", "data/val.csv")
    (results,) = (run / "tests").iterdir()
    assert len(json.loads((results / "predictions.json").read_text())) == 4


@in_ray
def test_its_sweep_runs_a_lost_trial_anew_and_reports_the_same_table(old: Path) -> None:
    sweep = old / "runs" / "sweep"
    table = (sweep / "table.csv").read_text()
    (sweep / "table.csv").unlink()
    tats(old, "tune", "report", "runs/sweep")
    assert (sweep / "table.csv").read_text() == table
    shutil.rmtree(sweep / "trials" / "m_o=1")
    kept = (sweep / "trials" / "m_o=0" / "trial.json").read_bytes()
    text = tats(old, "tune", "sweep.yaml", "--resume")
    assert "RESUMED  1 kept (m_o=0)" in text
    assert (sweep / "trials" / "m_o=0" / "trial.json").read_bytes() == kept
    for then, now in zip(
        table.splitlines(), (sweep / "table.csv").read_text().splitlines(), strict=True
    ):
        for a, b in zip(then.split(","), now.split(","), strict=True):
            assert a == b or float(b) == pytest.approx(float(a), rel=1e-4), now
