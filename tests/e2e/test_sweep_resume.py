"""A sweep whose driver is killed ends with the table that undisturbed runs give."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import load_config
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tats_ray.sweeps.sweep_folder import read_record
from tats_ray.sweeps.trial_measures import error_at, knn_accuracy, train_error, val_error
from tats_ray.view.tracking import read_metrics

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]

BASE = """
data: {{train_list: {train}, val_list: {val}, num_frames: 4, image_size: 32, stride: 1,
       num_workers: 0, cache_mb: 50}}
model: {{size: tiny, patch: 8, depth: 1, decoder_depth: 1, pos_embed: sincos_3d}}
sampler: {{mask_ratio: 0.75}}
algorithm: {{name: ppo, lr: 1e-3, advantage: relative}}
loop: {{mae_only_epochs: 1}}
optim: {{batch_size: 4, base_lr: 0.1, warmup_epochs: 1}}
eval: {{every_epochs: 2}}
checkpoint: {{folder: {folder}, every_epochs: 4}}
log: {{every_steps: 1}}
"""
SWEEP = """
base: base.yaml
names: {epochs: loop.epochs}
table:
  - {epochs: 2, paper: 0.9}
  - {epochs: 40, paper: 0.8}
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=22, num_val=4, num_frames=10, size=32, workers=1)


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tats_ray", *words],
        cwd=cwd,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_half_done(trials: Path, process: subprocess.Popen[str]) -> None:
    """The short trial is over, the long one has a checkpoint and is not."""
    deadline = time.monotonic() + 150
    while True:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the sweep never came half way"
        short, long = (read_record(trials / f"epochs={epochs}") for epochs in (2, 40))
        has_checkpoint = (trials / "epochs=40" / "checkpoints" / "latest").is_file()
        if short is not None and short.is_done and has_checkpoint:
            assert long is not None
            assert long.status == "running", "too fast to be killed half way"
            return
        time.sleep(0.02)


def test_a_killed_sweep_resumes_to_the_same_table_and_best_yaml_repeats_its_best_trial(
    videos: SyntheticSet, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    text = BASE.format(train=videos.train_list, val=videos.val_list, folder=folder)
    (tmp_path / "base.yaml").write_text(text)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    trials = folder / "sweep" / "trials"
    process = start("tune", "sweep.yaml", cwd=tmp_path)
    wait_until_half_done(trials, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = read_record(trials / "epochs=2")
    at = checkpoints.load(trials / "epochs=40").position
    assert 0 < at.epoch < 40

    output, _ = (again := start("tune", "sweep.yaml", "--resume", cwd=tmp_path)).communicate(
        timeout=200
    )
    assert again.returncode == 0, output
    assert "RESUMED  1 kept (epochs=2); 1 continue from their checkpoints (epochs=40)" in output
    assert read_record(trials / "epochs=2") == kept  # to the second: it was not run again
    with (folder / "sweep" / "table.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert [rows[f"epochs={epochs}"]["status"] for epochs in (2, 40)] == ["finished"] * 2

    # The best trial is the long one, which was killed: a run from its configuration, undisturbed.
    output, _ = (best := start("pretrain", "runs/sweep/best.yaml", cwd=tmp_path)).communicate(
        timeout=200
    )
    assert best.returncode == 0, output
    run = folder / "sweep_best"
    config = load_config(folder / "sweep" / "best.yaml")
    assert config.loop.epochs == 40
    losses, same = (
        [record["mae/loss"] for record in read_metrics(one) if "mae/loss" in record]
        for one in (trials / "epochs=40", run)
    )
    assert len(losses) == 200
    assert losses == same
    row = rows["epochs=40"]
    assert float(row["train_error"]) == train_error(run)
    assert float(row["val_error"]) == val_error(run)
    # What is measured afterwards is what the run measured, where the ratios agree.
    assert error_at(str(run), 0.75, "cpu") == pytest.approx(val_error(run), rel=1e-5)
    assert error_at(str(run), 0.5, "cpu") != pytest.approx(val_error(run), rel=1e-5)
    assert float(row["knn"]) == knn_accuracy(str(run), config.data, 20, "cpu")
