"""A task of your own: a hidden token earns the mean error of its place over time."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import LearningScorer, Scorer
from tats_ray.ops.rewards import clip_return
from torch import Tensor


class CustomEnvironment(VectorEnv[Any, Any, Any]):
    """One step per clip. A run makes it, and hands over and expects torch tensors."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, *, num_envs: int, scorer: Scorer, grid: TokenGrid, **others: Any) -> None:
        # The others are width, num_visible, reward (a name) and arrays ("torch").
        self.num_envs, self.scorer, self.grid = num_envs, scorer, grid

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        """The run brings the clips, `B C F H W`; the sampler sees tokens, `B N D`."""
        self.clips: Tensor = options["clips"]
        return self.scorer.embed(self.clips), {}

    def step(self, actions: Tensor) -> Any:
        """The action is the numbers of the visible tokens of each clip, `B K`."""
        trained = None
        if isinstance(self.scorer, LearningScorer):  # a rollout worker's only scores
            trained = self.scorer.learn(self.clips, actions)
        error = trained.error if trained else self.scorer.score(self.clips, actions)
        slots = error.unflatten(1, (self.grid.time, -1))  # time is the slowest index
        reward = slots.mean(1, keepdim=True).expand_as(slots).flatten(1)
        ended = np.ones(self.num_envs, dtype=bool)
        info = {"token_reward": reward, "training_step": trained}
        return None, clip_return(reward, actions), ended, ~ended, info


# Importing this module, which the part of `env.id` before the colon asks for, does it.
gymnasium.register(
    "Custom/PlaceError-v0",
    vector_entry_point="custom_environment:CustomEnvironment",
)


if __name__ == "__main__":
    from tats_ray.runs.demo import try_out

    # A short training through the whole Ray loop, on videos that it makes.
    chosen = {"id": "custom_environment:Custom/PlaceError-v0"}
    print(try_out({"env": chosen, "algorithm": {"lr": 1e-3}}).report)
