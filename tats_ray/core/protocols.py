"""The protocols between the parts. Implement one, and nothing else has to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from tats_ray.core.arrays import Float, Int, UInt8
from tats_ray.core.grid import TokenGrid
from tats_ray.core.group import Group
from tats_ray.core.ranges import check_ranges
from tats_ray.core.types import Evaluation, Metrics, Rollout, Selection, TrainingStep


@runtime_checkable
class MaskPolicy(Protocol):
    """Sampler, draw rule and value: what RL calls the policy."""

    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        """Draw without replacement; the same generator state gives the same draw."""

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        """Log-probabilities and value under the current weights, with gradients."""


@runtime_checkable
class MaskRule(Protocol):
    """Draws masks without looking at the clips; any function of this form is one."""

    def __call__(
        self, grid: TokenGrid, num_clips: int, num_visible: int, generator: torch.Generator, /
    ) -> Int[Tensor, "B K"]:
        """Distinct token indices that stay visible, `num_visible` for each clip."""


@runtime_checkable
class Algorithm(Protocol):
    """Rollouts in, a better policy out. Knows neither Ray nor Gymnasium."""

    def update(self, rollouts: Sequence[Rollout], *, generator: torch.Generator) -> Metrics:
        """Improve the policy in place; return scalars, means over the update.

        One that is `Shareable` can be run by several learners at once.
        """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Shareable(Protocol):
    """An algorithm that several learners can run together, each on its own rollouts."""

    def join(self, group: Group) -> None:
        """From now on, average over the group whatever depends on all rollouts of an update: the
        gradients, and any statistic of the batch. Then all members make the same step.
        """


@runtime_checkable
class Scorer(Protocol):
    """Scores a selection with a masked autoencoder. Scoring changes nothing."""

    def embed(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N D"]:
        """What the policy observes; carries no gradient."""

    def score(
        self, clips: UInt8[Tensor, "B C F H W"], visible_idx: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B N"]:
        """Squared error per token in normalised-pixel units; exactly 0 where visible."""


@runtime_checkable
class LearningScorer(Scorer, Protocol):
    """A scorer that can also train: the one that a run hands to its environment."""

    def learn(
        self, clips: UInt8[Tensor, "B C F H W"], visible_idx: Int[Tensor, "B K"]
    ) -> TrainingStep:
        """Score, and learn from the error. The environment calls this once in each `step`, and
        puts the result into `info["training_step"]`.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigBase:
    """Base of every configuration dataclass: unknown fields are refused, not dropped.

    Fields are inside their ranges (`core.ranges`). A subclass with a `__post_init__` of its own
    calls its parent's first.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    _prefix: ClassVar[str] = ""
    """What stands before a field's name in messages, and on the command line."""

    def __post_init__(self) -> None:
        check_ranges(self, self._prefix)
