"""One draw per clip: a contextual bandit over sets of tokens, batched by nature."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from tats_ray.envs.episode import ClipDraws, Episode
from tats_ray.envs.forked import leave_parents_threads
from tats_ray.envs.memory import Remembered, random_error
from tats_ray.envs.observations import clip_features, observation_space, round_features
from tats_ray.envs.task import TaskOptions, build_task
from torch import Tensor

from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import LearningScorer
from tats_ray.ops.rewards import clip_return
from tats_ray.view.overlay import draw_overlay

ArrayKind = Literal["torch", "numpy"]
_RESET_OPTIONS = ("clips", "token_motion", "clip_idx", "reset_mask")


class TokenSelectionVectorEnv(VectorEnv[Any, Any, Any]):
    """Choose the visible tokens of each clip; the reward comes from its reconstruction.

    * State: what `observation` says: scalars per token, embeddings, or pixels.
    * Action: `num_visible` distinct token indices per clip, or a score per token, of which the
      highest are taken.
    * Step: the masked autoencoder reconstructs the hidden tokens. With a scorer that learns, this
      is its training step, which `info["training_step"]` tells of, and the reward drifts.
    * Reward: the reward function, averaged over hidden tokens: one number per clip; per token in
      `info["token_reward"]`, raw errors in `info["token_error"]`, both `B N`.
    * Episode: one step; `terminated` is always True. With clips of its own, the environment shows
      the next ones at once (same-step autoreset); with clips from the caller there is no automatic
      reset.

    See docs/environments.md, and `TaskOptions` for all options.

    Args:
        num_envs: clips per batch.
        arrays: `torch` hands tensors through on their device; `numpy` is Gymnasium's own kind.
        autoreset: False leaves every reset to the caller.

    Version History:
        v0: one-step episodes.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        arrays: ArrayKind = "numpy",
        render_mode: str | None = None,
        autoreset: bool = True,
        num_rounds: int | None = None,
        **options: Any,
    ) -> None:
        leave_parents_threads()
        task = build_task(TaskOptions(**options), num_rounds)
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode {render_mode!r} is not known; known: rgb_array")
        self.task, self.scorer, self.grid = task, task.scorer, task.grid
        self.num_envs, self.num_visible = num_envs, task.num_visible
        self.num_rounds = num_rounds
        self.arrays: ArrayKind = arrays
        self.render_mode = render_mode
        is_automatic = autoreset and task.source is not None
        mode = AutoresetMode.SAME_STEP if is_automatic else AutoresetMode.DISABLED
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.autoreset_mode = mode  # where torchrl looks for it
        self.single_observation_space = observation_space(
            task.observation, task.grid, task.width, has_rounds=num_rounds is not None
        )
        self.single_action_space = task.action.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._features = Remembered(partial(_features, task.grid))
        self._random_error = Remembered(
            partial(random_error, self.scorer, task.grid, task.num_visible),
            is_lasting=getattr(self.scorer, "is_frozen", False),
        )
        self.draws = ClipDraws(task.source, task.grid, num_envs)
        self._episode: Episode | None = None
        self._static: Tensor
        self._picture: Episode | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every row.

        Args:
            seed: of the first row; the others count on from it.
            options: `clips`, uint8 `B C F H W`, with `token_motion`, `B N`, where it is known; or
                `clip_idx`, `B`, to choose from the environment's own; else they are drawn.

        Raises:
            UsageError: without clips, with clips of another number or shape, or unknown options.
        """
        leave_parents_threads()
        options = options or {}
        _check_options(options)
        if seed is not None:
            super().reset(seed=self.draws.seed(seed)[0])
        elif not self.draws.row_random:
            self.draws.seed(self.np_random.integers(2**31, size=self.num_envs).tolist())
        if options.get("clips") is None:
            return self._begin(self.draws.draw(options.get("clip_idx")))
        return self._begin(self.draws.take(options["clips"], options.get("token_motion")))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Reconstruct each clip from the tokens chosen so far.

        Raises:
            UsageError: for a step without a reset, and for an action that does not name the right
                number of distinct tokens; never repaired silently.
        """
        leave_parents_threads()
        at = self._episode
        if at is None:
            raise UsageError("step was called after the episode's end; call reset first")
        at.show(self.task.action.read(actions, at.shown))
        scorer, question = self.scorer, (at.judged, at.visible_idx)
        trained = scorer.learn(*question) if isinstance(scorer, LearningScorer) else None
        error = trained.error if trained else scorer.score(*question)
        # For numpy all that follows is small: one wait for the scorer's device, not one per array.
        at.take_in(error if self.arrays == "torch" else error.cpu())
        visible_idx = at.visible_idx
        reward = self.task.reward(at.error, visible_idx, **self._reward_needs(at))
        gain = at.gain(clip_return(reward, visible_idx))
        info = {"token_reward": reward, "token_error": at.error}
        if at.motion is not None:
            info["token_motion"] = at.motion
            info["motion_share"] = at.motion.to(visible_idx.device).gather(1, visible_idx).mean(1)
        is_over = visible_idx.shape[1] >= self.num_visible
        observation, handed = self._observe(at), self._hand_out_all(info)
        if trained:
            handed["training_step"] = trained
        if is_over:
            observation, handed = self._end(observation, handed)
        ended = np.full(self.num_envs, is_over)
        return observation, self._hand_out(gain), ended, np.zeros_like(ended), handed

    def render(self) -> Any:
        """The last mask of each row over its frames, one row of time slots: visible is bright."""
        if self.render_mode is None:
            raise UsageError('render needs render_mode="rgb_array"')
        if self._picture is None:
            raise UsageError("render was called before the first reset; call reset first")
        clips, shown = self._picture.clips.cpu(), self._picture.shown.cpu()
        rows = zip(clips, shown, strict=True)
        return tuple(draw_overlay(clip, row, self.grid) for clip, row in rows)

    def _begin(self, episode: Episode) -> tuple[Any, dict[str, Any]]:
        if "motion" in self.task.reward.needs and episode.motion is None:
            raise UsageError(
                f"reward {self.task.reward_name!r} needs true motion, which these clips "
                "lack; use synthetic ones, or another reward"
            )
        episode.carry(getattr(self.scorer, "device", episode.clips.device))
        if self.arrays == "torch":
            episode.clips = episode.judged
        self._episode = self._picture = episode
        self._static = self._look(episode)
        info = {} if episode.motion is None else {"token_motion": episode.motion}
        return self._observe(episode), self._hand_out_all(info)

    def _look(self, episode: Episode) -> Tensor:
        """The part of an observation that stays as it is through an episode."""
        if self.task.observation == "clip":
            return episode.clips
        if self.task.observation == "tokens":
            return self.scorer.embed(episode.judged)
        return self._features(episode.clips, episode.numbers)

    def _observe(self, episode: Episode) -> Any:
        seen = self._static
        if self.num_rounds is not None:
            news = round_features(episode.shown, episode.error)
            seen = torch.cat([seen, news.to(seen)], dim=-1)
        if self.task.observation == "features":
            seen = seen.flatten(1)
        return self._hand_out(seen)

    def _reward_needs(self, episode: Episode) -> dict[str, Tensor]:
        needs = {}
        if "random_error" in self.task.reward.needs:
            needs["random_error"] = self._random_error(episode.clips, episode.numbers)
        if "motion" in self.task.reward.needs:
            assert episode.motion is not None  # or the episode would not have begun
            needs["motion"] = episode.motion
        return {name: value.to(episode.error.device) for name, value in needs.items()}

    def _end(self, observation: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """After the last step: the next episode, where it begins by itself."""
        if self.autoreset_mode is AutoresetMode.DISABLED:
            self._episode = None
            return observation, info
        picture = self._picture
        following, start = self._begin(self.draws.draw())
        self._picture = picture
        everyone = np.ones(self.num_envs, dtype=bool)
        final = {"final_obs": observation, "final_info": info}
        marks = {f"_{name}": everyone for name in final}
        return following, {**info, **start, **final, **marks}

    def _hand_out(self, tensor: Tensor) -> Any:
        if self.arrays == "torch":
            return tensor
        tensor = tensor if tensor.dtype == torch.uint8 else tensor.float()
        # Users keep what they are given, so nothing is handed out twice.
        return tensor.detach().cpu().numpy().copy()

    def _hand_out_all(self, info: dict[str, Tensor]) -> dict[str, Any]:
        """Gymnasium's vector form has beside each array which rows it holds for."""
        handed = {name: self._hand_out(value) for name, value in info.items()}
        if self.arrays == "torch":
            return handed
        everyone = np.ones(self.num_envs, dtype=bool)
        return {**handed, **{f"_{name}": everyone for name in handed}}


def _features(grid: TokenGrid, clips: Tensor, numbers: Sequence[int]) -> Tensor:
    return clip_features(clips, grid)


def _check_options(options: dict[str, Any]) -> None:
    unknown = sorted(options.keys() - set(_RESET_OPTIONS))
    if unknown:
        known = ", ".join(_RESET_OPTIONS)
        raise UsageError(f"reset option {unknown[0]!r} is not known; known: {known}")
    if not np.all(options.get("reset_mask", True)):
        raise UsageError("all episodes end together, so all must be reset together")
