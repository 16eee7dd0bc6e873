"""One draw per clip: a contextual bandit over sets of tokens, batched by nature."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import Scorer
from tats_ray.ops.rewards import REWARDS, clip_return

ArrayKind = Literal["torch", "numpy"]


class TokenSelectionVectorEnv(VectorEnv[Any, Any, Any]):
    """Choose which tokens of each clip stay visible; earn by what is reconstructed from them.

    * State: the clip's token embeddings, `B N D`.
    * Action: `num_visible` distinct token indices per clip, `B K`, any order.
    * Step: the masked autoencoder reconstructs the hidden tokens. With a scorer that learns, this
      is its training step, and the reward drifts as it does.
    * Reward: `reward(error)` averaged over hidden tokens, one number per clip; per token in
      `info["token_reward"]`, raw errors in `info["token_error"]`, both `B N`.
    * Episode: one step; `terminated` is always True. Call `reset` before the next step: there is
      no automatic reset, because the next clips come from the caller.

    Args:
        num_envs: clips per batch.
        scorer: the autoencoder, learning or frozen.
        grid: lattice of tokens.
        width: width of a token embedding, D.
        num_visible: tokens to choose, K.
        reward: name in `tats_ray.ops.rewards.REWARDS`.
        arrays: `torch` hands tensors through on their device; `numpy` is Gymnasium's own kind.

    Version History:
        v0: one-step episodes; rewards token_error, clip_error, negative_clip_error.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        scorer: Scorer,
        grid: TokenGrid,
        width: int,
        num_visible: int,
        reward: str = "token_error",
        arrays: ArrayKind = "numpy",
    ) -> None:
        if reward not in REWARDS:
            raise UsageError(f"env.reward {reward!r} is not known; known: {', '.join(REWARDS)}")
        self.num_envs = num_envs
        self.scorer = scorer
        self.grid = grid
        self.num_visible = num_visible
        self.reward = REWARDS[reward]
        self.arrays: ArrayKind = arrays
        self.single_observation_space = spaces.Box(
            -np.inf, np.inf, (grid.num_tokens, width), np.float32
        )
        self.single_action_space = spaces.MultiDiscrete([grid.num_tokens] * num_visible)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._clips: Tensor | None = None
        self._tokens: Tensor | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode on `options["clips"]`, uint8 `B C F H W`.

        Raises:
            UsageError: without clips, or with clips of another number or shape.
        """
        super().reset(seed=seed)
        clips = (options or {}).get("clips")
        expected = (self.num_envs, *self.grid.clip_shape)
        if clips is None:
            raise UsageError('reset needs options={"clips": uint8 tensor of shape (B C F H W)}')
        clips = torch.as_tensor(clips)
        if tuple(clips.shape) != expected or clips.dtype != torch.uint8:
            raise UsageError(
                f"clips are {clips.dtype} {tuple(clips.shape)}, expected torch.uint8 {expected}"
            )
        self._clips = clips
        self._tokens = self.scorer.embed(clips)
        return self._hand_out(self._tokens), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Reconstruct each clip from the chosen tokens.

        Raises:
            UsageError: for a step without a reset, and for anything but `num_visible` distinct
                tokens in range; never repaired silently.
        """
        if self._clips is None or self._tokens is None:
            raise UsageError("step was called after the episode's end; call reset first")
        visible_idx = self._checked(torch.as_tensor(actions))
        error = self.scorer.score(self._clips, visible_idx)
        visible_idx = visible_idx.to(error.device)
        reward = self.reward(error, visible_idx)
        observation = self._hand_out(self._tokens)
        self._clips = self._tokens = None
        info = {"token_reward": self._hand_out(reward), "token_error": self._hand_out(error)}
        ended = np.ones(self.num_envs, dtype=bool)
        returns = self._hand_out(clip_return(reward, visible_idx))
        return observation, returns, ended, np.zeros_like(ended), info

    def _checked(self, visible_idx: Tensor) -> Tensor:
        shape, tokens = tuple(visible_idx.shape), self.grid.num_tokens
        if len(shape) != 2 or shape[0] != self.num_envs or shape[1] != self.num_visible:
            raise UsageError(
                f"action has shape {shape}, expected ({self.num_envs}, {self.num_visible}): "
                "so many token indices per clip"
            )
        if visible_idx.is_floating_point() or visible_idx.min() < 0 or visible_idx.max() >= tokens:
            raise UsageError(f"action must hold whole token indices in [0, {tokens})")
        ordered = visible_idx.sort(dim=1).values
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise UsageError("action names a token twice; each clip needs distinct tokens")
        return visible_idx.long()

    def _hand_out(self, tensor: Tensor) -> Any:
        return tensor if self.arrays == "torch" else tensor.float().cpu().numpy()
