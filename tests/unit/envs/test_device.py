"""Where the frozen autoencoder runs: it changes no number, and is refused where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from tats_ray.envs import SEQUENTIAL_TOKEN_SELECTION, TOKEN_SELECTION

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.core.errors import UsageError

IDS = [TOKEN_SELECTION, SEQUENTIAL_TOKEN_SELECTION]


def played(env_id: str, **options: Any) -> list[Any]:
    """Everything that two episodes hand out."""
    env = gymnasium.make_vec(env_id, num_envs=3, **options)
    seen: list[Any] = [env.reset(seed=0)]
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 144)).astype(np.float32)
    seen += [env.step(actions) for _ in range(5)]
    return seen


@pytest.mark.parametrize("env_id", IDS)
def test_naming_the_cpu_changes_nothing(env_id: str) -> None:
    np.testing.assert_equal(played(env_id, device="cpu"), played(env_id))


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", ""])
def test_device_that_is_not_here_is_refused_with_those_that_are(device: str) -> None:
    expected = rf"^device '{device}' is not available; this machine has cpu"
    with pytest.raises(UsageError, match=expected):
        gymnasium.make(TOKEN_SELECTION, device=device)
    with pytest.raises(UsageError, match=expected):
        FrozenScorer.load(Path("nowhere"), device=device)


def test_device_of_a_scorer_is_the_scorers_own_affair() -> None:
    with pytest.raises(UsageError, match="both scorer and device are given; give one"):
        gymnasium.make(TOKEN_SELECTION, scorer=FrozenScorer.tiny(), device="cpu")
