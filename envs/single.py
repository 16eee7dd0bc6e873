"""The environments for one clip at a time: the batch of one, in Gymnasium's plain form."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from tats_ray.envs.sequential import SequentialTokenSelectionVectorEnv
from tats_ray.envs.token_selection import TokenSelectionVectorEnv

_PER_CLIP = ("clips", "token_motion", "clip_idx")


class TokenSelectionEnv(gymnasium.Env[Any, Any]):
    """One row of `TokenSelectionVectorEnv`; options of `reset` are those of one clip.

    Args:
        options: those of the vector form.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
    vector_class: ClassVar[type[TokenSelectionVectorEnv]] = TokenSelectionVectorEnv

    def __init__(self, *, render_mode: str | None = None, **options: Any) -> None:
        self.vector = self.vector_class(1, render_mode=render_mode, autoreset=False, **options)
        self.render_mode = render_mode
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.vector.draws.row_random = [self.np_random]
        batch = {
            name: value[None] if hasattr(value, "shape") else [value]
            for name, value in (options or {}).items()
            if name in _PER_CLIP
        }
        observation, info = self.vector.reset(options={**(options or {}), **batch})
        return observation[0], _row(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        actions = action[None] if hasattr(action, "shape") else np.asarray(action)[None]
        observation, reward, terminated, truncated, info = self.vector.step(actions)
        over = bool(terminated[0]), bool(truncated[0])
        return observation[0], float(reward[0]), *over, _row(info)

    def render(self) -> Any:
        return self.vector.render()[0]


class SequentialTokenSelectionEnv(TokenSelectionEnv):
    """One row of `SequentialTokenSelectionVectorEnv`."""

    vector_class = SequentialTokenSelectionVectorEnv


def _row(info: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if name == "training_step" else value[0]
        for name, value in info.items()
        if not name.startswith("_")
    }
