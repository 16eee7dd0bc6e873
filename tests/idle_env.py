"""An environment that only asks for errors, as that of a rollout worker does: it trains nothing."""

from __future__ import annotations

from typing import Any

import gymnasium
from tats_ray.envs import TokenSelectionVectorEnv

from tats_ray.training.rollouts import Replica

ID = "tests.idle_env:Tests/Idle-v0"


class IdleEnv(TokenSelectionVectorEnv):
    def __init__(self, *args: Any, scorer: Any, **options: Any) -> None:
        super().__init__(*args, scorer=Replica(scorer.mae, "float32"), **options)


gymnasium.register("Tests/Idle-v0", vector_entry_point=IdleEnv)
