"""The examples run as they stand, in small form, and are as short as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_rllib_example_is_kept_out_of_the_lock_and_has_a_target_of_its_own() -> None:
    assert "test-rllib:" in (ROOT / "Makefile").read_text()
    assert "dm-tree" not in (ROOT / "requirements.lock").read_text()
    compile((ROOT / "examples" / "rllib_ppo.py").read_text(), "rllib_ppo.py", "exec")
