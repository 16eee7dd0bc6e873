"""The examples run as they stand, in small form, and are as short as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.config.schema import LoopConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Rollout

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(set((ROOT / "examples").glob("*.py")) - set((ROOT / "examples").glob("test_*")))


def run(name: str, steps: int) -> str:
    command = [sys.executable, ROOT / "examples" / name, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_is_under_sixty_lines(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 60


@pytest.mark.long
def test_stable_baselines3_learns_above_random() -> None:
    found = re.findall(r"^(\w+) +([+-][\d.]+) \+- ([\d.]+)$", run("sb3_ppo.py", 4096), re.MULTILINE)
    rows = {name: (float(mean), float(error)) for name, mean, error in found}
    (random, random_error), (learned, learned_error) = rows["random"], rows["PPO"]
    assert abs(random) < 4 * random_error  # the reward's zero is what random choice earns
    assert learned - random > 2 * (random_error**2 + learned_error**2) ** 0.5


def test_torchrl_trains() -> None:
    found = re.findall(
        r"^update (\d+): error reduction ([+-][\d.]+)$", run("torchrl_ppo.py", 2), re.M
    )
    assert [int(step) for step, _ in found] == [0, 1]
    assert all(abs(float(value)) < 0.1 for _, value in found)


def test_custom_environment_trains_both_networks_with_a_reward_of_its_own(
    small_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    env_id = "custom_environment:Custom/PlaceError-v0"
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0), env_id=env_id)
    pushed: list[Rollout] = []
    push = run.client.push
    run.client.push = lambda rollout: (pushed.append(rollout), push(rollout))
    before = run.weights()
    run.loop.run()
    moved = {name.split(".")[0] for name, w in run.weights().items() if not w.equal(before[name])}
    assert moved == {"mae", "policy"}
    assert ["policy/loss" in metrics for metrics in run.metrics] == [True] * 4
    for rollout in pushed:
        first, second = rollout.reward.chunk(2, dim=1)  # two time slots
        assert first.equal(second)
        assert first.std() > 0


def test_custom_environment_only_scores_for_a_rollout_worker(
    mae: Any, clips: Tensor, grid: TokenGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    env_id = "custom_environment:Custom/PlaceError-v0"
    scorer = FrozenScorer(mae)
    env: Any = gymnasium.make_vec(env_id, num_envs=2, scorer=scorer, grid=grid, arrays="torch")
    tokens, _ = env.reset(options={"clips": clips})
    assert tokens.shape == (2, 32, 16)
    _, reward, ended, _, info = env.step(torch.arange(8).expand(2, -1))
    assert info["training_step"] is None
    assert info["token_reward"].shape == (2, 32)
    assert reward.shape == (2,)
    assert ended.all()


def test_rllib_example_is_kept_out_of_the_lock_and_has_a_target_of_its_own() -> None:
    assert "test-rllib:" in (ROOT / "Makefile").read_text()
    assert "dm-tree" not in (ROOT / "requirements.lock").read_text()
    compile((ROOT / "examples" / "rllib_ppo.py").read_text(), "rllib_ppo.py", "exec")
