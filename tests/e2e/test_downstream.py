"""The three commands of docs/downstream.md, from a checkpoint to results, at a tiny size."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.load import dump_config, load_config
from tats_ray.core.types import Position
from tats_ray.data.synthetic import synthesize
from tats_ray.models.zoo import build_mae, token_grid
from tats_ray.training.mae_learner import MAELearner
from tests.marks import RAYS_WARNINGS

ROOT = Path(__file__).parents[2]
SMALL = {
    "probe": "--epochs 2 --lrs 0.1 --weight-decays 0",
    "finetune": "--optim.epochs 1 --cluster.threads 1 --data.cache_mb 10 --log.mode plain "
    "--log.every_steps 1",
    "test": "",
}
pytestmark = [*RAYS_WARNINGS, pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]


def test_the_three_commands_of_the_page_lead_from_a_checkpoint_to_results(
    tmp_path: Path,
) -> None:
    # Ray's workers start in this folder, where a checkout is not found by itself.
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    shutil.copytree(ROOT / "tune_configs", tmp_path / "tune_configs")
    synthesize(tmp_path / "data" / "demo", num_train=16, num_val=8, num_frames=32, workers=1)
    config = load_config(ROOT / "tune_configs" / "debug_cpu.yaml")
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=0)
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    state = Checkpoint(Position(), learner.state_dict(), None, dump_config(config))
    checkpoints.save(tmp_path / "runs" / "debug_cpu", state, keep_last=1)
    page = (ROOT / "docs" / "downstream.md").read_text()
    first = re.search(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert first is not None
    commands = [shlex.split(line)[1:] for line in first[1].splitlines()]
    assert [words[0] for words in commands] == ["probe", "finetune", "test"]
    told = ""
    for words in commands:
        command = [sys.executable, "-m", "tats_ray", *words, *shlex.split(SMALL[words[0]])]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told += done.stdout
    assert re.search(r"step +1/1 +epoch 1/1 +loss \d\.\d+ +top-1 [\d.]+%", told)
    assert re.search(r"eval +1/1 +epoch 1/1 +top-1 [\d.]+%", told)
    assert re.search(r"result +top-1 [\d.]+% of single clips", told)
    (folder,) = (tmp_path / "runs" / "finetune_demo" / "tests").iterdir()
    assert len(json.loads((folder / "predictions.json").read_text())) == 8
    assert (tmp_path / "runs" / "finetune_demo" / "metrics.jsonl").is_file()
