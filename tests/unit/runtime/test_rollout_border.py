"""What may enter the rollout buffer, asked of the buffer itself, without a cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from tats_ray.core.errors import UsageError
from tats_ray.core.types import Rollout
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer


class Bomb:
    """Runs code wherever numpy, or pickle, looks at it."""

    went_off = False

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        type(self).went_off = True
        return np.zeros(3)


class Subclass(np.ndarray):
    pass


def arrays(**changed: Any) -> dict[str, Any]:
    rollout = Rollout(
        tokens=torch.zeros(2, 4, 3, dtype=torch.bfloat16),
        visible_idx=torch.zeros(2, 1, dtype=torch.long),
        log_prob=torch.zeros(2, 4),
        value=torch.zeros(2),
        reward=torch.zeros(2, 4),
        policy_version=0,
        step=0,
        rank=0,
    )
    return {**rollout.to_arrays(), **changed}


def pushed(rollout: dict[str, Any]) -> int:
    async def run() -> int:
        buffer = RolloutBuffer(max_bytes=10**6)
        await buffer.reset("t")
        await buffer.push("t", 0, rollout, 100, 1.0)
        return len(await buffer.take("t", 0, 1, 1.0))

    return asyncio.run(run())


def test_rollout_of_numbers_passes() -> None:
    assert pushed(arrays()) == 1


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("tokens", Bomb(), "Bomb"),
        ("reward", np.full(1, None, dtype=object), "array of object"),
        ("reward", np.zeros(3).view(Subclass), "Subclass"),
        ("value", np.array(["text"]), "array of <U4"),
        ("step", "os.system", "str"),
        ("policy_version", np.int64(1), "int64"),
        ("more", [1, 2], "list"),
    ],
)
def test_rollout_with_anything_else_is_refused_by_name(name: str, value: Any, what: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is {what}"):
        pushed(arrays(**{name: value}))
    assert not Bomb.went_off
