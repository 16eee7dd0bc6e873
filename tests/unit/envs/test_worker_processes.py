"""Environments in worker processes of three libraries: no start method hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Torch's pool of threads is what a forked child cannot have, so the parent must use it first.
PARENT = """
import functools, gymnasium, torch
from tats_ray.envs import TOKEN_SELECTION

def used():
    torch.set_num_threads(2)
    big = torch.rand(512, 512)
    (big @ big).softmax(1)

"""
GYMNASIUM = """
if __name__ == "__main__":
    used()
    env = gymnasium.make_vec(
        TOKEN_SELECTION, num_envs=2, vectorization_mode="async",
        vector_kwargs={"context": METHOD},
    )
    env.reset(seed=0)
    print(env.step(env.action_space.sample())[1].shape)
    env.close()
"""
READY_MADE = """
if __name__ == "__main__":
    used()
    ready = gymnasium.make(TOKEN_SELECTION)
    ready.reset(seed=0)
    env = gymnasium.vector.AsyncVectorEnv([lambda: ready] * 2, context=METHOD)
    env.reset(seed=0)
    print(env.step(env.action_space.sample())[1].shape)
    env.close()
"""
BASELINES = """
from stable_baselines3.common.vec_env import SubprocVecEnv

if __name__ == "__main__":
    used()
    make = functools.partial(gymnasium.make, TOKEN_SELECTION)
    env = SubprocVecEnv([make] * 2, start_method=METHOD)
    env.reset()
    print(env.step([env.action_space.sample()] * 2)[1].shape)
    env.close()
"""
TORCHRL = """
from torchrl.envs import GymEnv, ParallelEnv

if __name__ == "__main__":
    used()
    make = functools.partial(GymEnv, TOKEN_SELECTION)
    env = ParallelEnv(2, make, mp_start_method=METHOD)
    print(tuple(env.rollout(1)["next", "reward"].shape)[:1])
    env.close()
"""


def check(script: str, method: str | None, folder: Path) -> None:
    file = folder / "program.py"
    file.write_text(PARENT + script.replace("METHOD", repr(method)))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", file],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
    )
    assert done.stdout.endswith("(2,)\n"), done.stderr


def test_gymnasiums_workers_start_as_python_starts_them(tmp_path: Path) -> None:
    check(GYMNASIUM, None, tmp_path)


def test_an_environment_made_before_the_fork_goes_on_in_the_children(tmp_path: Path) -> None:
    check(READY_MADE, "fork", tmp_path)


@pytest.mark.long  # each worker imports torch again
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    ("library", "script"),
    [("gymnasium", GYMNASIUM), ("stable_baselines3", BASELINES), ("torchrl", TORCHRL)],
)
def test_every_start_method_works(library: str, script: str, method: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    check(script, method, tmp_path)
