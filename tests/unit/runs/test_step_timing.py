"""The timing before a run measures the run's own environment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import pytest
from tats_ray.envs import TokenSelectionVectorEnv

from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import synthesize
from tats_ray.runs.step_timing import time_steps
from tests import idle_env

SLOW = "Tests/Slow-v0"
PAUSE_S = 0.2


class SlowEnv(TokenSelectionVectorEnv):
    asked: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, num_envs: int, **options: Any) -> None:
        self.asked.append({"num_envs": num_envs, **options})
        super().__init__(num_envs, **options)

    def step(self, actions: Any) -> Any:
        time.sleep(PAUSE_S)
        return super().step(actions)


gymnasium.register(SLOW, vector_entry_point=SlowEnv)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("videos")
    videos = synthesize(folder, num_train=4, num_val=1, num_frames=8, size=32, workers=1)
    return configured(videos.train_list, SLOW)


def configured(train_list: str | Path, env_id: str) -> RunConfig:
    return parse_config(
        {
            "data": {
                "train_list": str(train_list),
                "num_frames": 4,
                "image_size": 32,
                "stride": 1,
            },
            "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
            "sampler": {"mask_ratio": 0.75},
            "env": {"id": env_id},
            "optim": {"batch_size": 2},
        }
    )


def test_steps_are_timed_in_the_environment_that_the_configuration_names(
    config: RunConfig,
) -> None:
    found = time_steps(config, 1)
    assert min(found.mae_step_s, found.joint_step_s) > PAUSE_S
    (asked,) = SlowEnv.asked
    assert (asked["num_envs"], asked["num_visible"], asked["reward"]) == (2, 8, "token_error")


def test_timing_of_an_environment_that_trains_nothing_says_so(config: RunConfig) -> None:
    with pytest.raises(UsageError, match=r"^env\.id Tests/Idle-v0: its step trained nothing"):
        time_steps(configured(config.data.train_list, idle_env.ID), 1)
