"""Owner of the policy, its algorithm and its version number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tats_ray.core.protocols import Algorithm
from tats_ray.core.seeds import stream
from tats_ray.core.types import Metrics, Rollout
from tats_ray.models.policy import SamplerPolicy


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    """The outcome of one policy update: new weights, their version, and scalars about it."""

    version: int
    weights: Mapping[str, Tensor]
    metrics: Metrics


class PolicyLearner:
    """Turns rollouts into new versions of the policy.

    An update is a pure function of (seed, version, weights, rollouts): rollouts are put in the
    order of (step, rank) first, so that it does not matter in which order they arrived.
    """

    def __init__(self, policy: SamplerPolicy, algorithm: Algorithm, *, seed: int) -> None:
        self.policy = policy
        self.algorithm = algorithm
        self.seed = seed
        self.version = 0

    def update(self, rollouts: Sequence[Rollout]) -> Metrics:
        """One update; the version grows by one.

        Args:
            rollouts: every rank's rollouts of one collection cycle. Those of one MAE step form
                one entry of the memory.
        """
        ordered = sorted(rollouts, key=lambda r: (r.step, r.rank))
        entries = [
            Rollout.concatenate(list(group)) for _, group in groupby(ordered, lambda r: r.step)
        ]
        metrics = self.algorithm.update(
            entries, generator=stream(self.seed, "update", self.version)
        )
        self.version += 1
        return metrics

    def weights(self) -> dict[str, Tensor]:
        return self.policy.state_dict()

    def state_dict(self) -> dict[str, Any]:
        state = self.algorithm.state_dict()
        return {
            "network": self.policy.state_dict(),
            "optimizer": state["optimizer"],
            "numbers": {**state["numbers"], "version": self.version},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.load_state_dict(state["network"])
        self.algorithm.load_state_dict(state)
        self.version = int(state["numbers"]["version"])


@runtime_checkable
class PolicyClient(Protocol):
    """How the loop reaches the policy learner, wherever that is."""

    def push(self, rollout: Rollout) -> None:
        """Add one rank's rollout of one step to the memory."""

    def update(self, num_entries: int) -> PolicyUpdate:
        """Wait until all ranks' rollouts of the cycle were learned from.

        Args:
            num_entries: MAE steps in the cycle; each holds one rollout per rank.
        """

    def state_dict(self) -> dict[str, Any]:
        """The policy learner's state, for a checkpoint."""


class LocalPolicyClient:
    """The policy learner in the same process: for tests, timing and reading."""

    def __init__(self, learner: PolicyLearner) -> None:
        self.learner = learner
        self.memory: list[Rollout] = []

    def push(self, rollout: Rollout) -> None:
        self.memory.append(rollout)

    def update(self, num_entries: int) -> PolicyUpdate:
        metrics = self.learner.update(self.memory)
        self.memory = []
        return PolicyUpdate(self.learner.version, self.learner.weights(), metrics)

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()
