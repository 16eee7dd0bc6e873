"""Owner of the policy, its algorithm and its version number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.plugins import raised
from tats_ray.core.devices import Precision, autocast
from tats_ray.core.errors import NonFiniteError, PeerFailedError, TatsError
from tats_ray.core.group import ALONE, Group
from tats_ray.core.late import LateMetrics, unread
from tats_ray.core.protocols import Algorithm, Shareable
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

    Args:
        group: learners of the same policy, each with rollouts of its own. All of them call
            `update` together, and what they learn is what one would from the rollouts of all.
    """

    def __init__(
        self,
        policy: SamplerPolicy,
        algorithm: Algorithm,
        *,
        seed: int,
        precision: Precision = "float32",
        group: Group = ALONE,
    ) -> None:
        self.policy = policy
        self.group = group
        self.precision: Precision = precision
        self.algorithm = algorithm
        self.device = next(policy.parameters()).device
        self.seed = seed
        self.version = 0
        if group.size > 1:
            assert isinstance(algorithm, Shareable)  # the plan has checked it
            algorithm.join(group)

    def update(self, rollouts: Sequence[Rollout]) -> Metrics:
        """One update; the version grows by one.

        Args:
            rollouts: this learner's of one collection cycle. Those of one MAE step form
                one entry of the memory.

        Returns:
            The algorithm's scalars; `staleness`: how many updates ago the weights that drew the
            oldest of the rollouts were made; `mae_lag`: how many MAE steps those were old that
            judged it.
        """
        ordered = sorted(rollouts, key=lambda r: (r.step, r.rank))
        entries = [
            Rollout.concatenate(list(group)) for _, group in groupby(ordered, lambda r: r.step)
        ]
        generator = stream(self.seed, "update", self.version)
        with autocast(entries[0].tokens.device, self.precision), self._named(ordered):
            metrics = self.algorithm.update(entries, generator=generator)
        # Afterwards: the policy that learns is the one that drew, and its first ratio is 1.
        for entry in entries:
            self.policy.observe(entry.tokens, self.group)
        staleness = self.version - min(rollout.policy_version for rollout in rollouts)
        self.version += 1
        mae_lag = max(rollout.mae_lag for rollout in rollouts)
        return LateMetrics({**unread(metrics), "staleness": staleness, "mae_lag": mae_lag})

    @contextmanager
    def _named(self, ordered: Sequence[Rollout]) -> Iterator[None]:
        """Have an error say which algorithm or rollouts it came from, and where in its code."""
        try:
            yield
        except NonFiniteError as error:
            if error.is_own:
                steps = sorted({rollout.step for rollout in ordered})
                bad = [rollout for rollout in ordered if not rollout.is_finite()] or ordered
                error.version = self.version
                error.rollouts = tuple((steps.index(r.step), r.step, r.rank) for r in bad)
            raise
        except TatsError:
            raise
        except Exception as error:  # code of another package, which may fail in any way
            kind = type(self.algorithm)
            name = f"{kind.__module__}:{kind.__qualname__}"
            raise PeerFailedError(
                f"algorithm {name} failed in update {self.version}: {raised(error, name)}"
            ) from error

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

    is_remote: bool
    """Whether rollouts leave their device when they are pushed, so that the host waits anyway."""

    def learning_policy(self) -> SamplerPolicy | None:
        """The policy that learns, where it may learn from the graph that it draws with."""

    def current(self) -> Mapping[str, Tensor]:
        """Weights of the policy to begin with."""

    def begin(self, step: int, mae: nn.Module) -> None:
        """A cycle begins: where workers make its rollouts, they may, judging with this MAE.

        Args:
            step: MAE steps that are done.
        """

    def push(self, rollout: Rollout) -> None:
        """Add one slot's rollout of one step to the memory, where the loop makes them."""

    def update(self, num_entries: int) -> PolicyUpdate | None:
        """Have all ranks' rollouts of the cycle learned from.

        Args:
            num_entries: MAE steps in the cycle; each holds one rollout per slot.

        Returns:
            The policy to draw with from now on: that of `max_staleness` updates ago. None when
            that is still the one in use.
        """

    def drain(self) -> PolicyUpdate | None:
        """Wait for all updates under way; the newest policy, None when it is in use already."""

    def state_dict(self) -> dict[str, Any]:
        """The policy learner's state, for a checkpoint."""


class LocalPolicyClient:
    """The policy learner in the same process, on the same device.

    Args:
        max_staleness: updates whose weights are held back, as if they were still under way.
    """

    is_remote = False

    def __init__(self, learner: PolicyLearner, *, max_staleness: int = 0) -> None:
        self.learner = learner
        self.max_staleness = max_staleness
        self.keeps_graphs = not max_staleness and isinstance(learner.algorithm, PolicyGradient)
        """Whether the policy that draws is the one that learns, and may learn from that graph."""
        self.memory: list[Rollout] = []
        self._under_way: list[PolicyUpdate] = []

    def learning_policy(self) -> SamplerPolicy | None:
        return self.learner.policy if self.keeps_graphs else None

    def current(self) -> Mapping[str, Tensor]:
        return self.learner.weights()

    def begin(self, step: int, mae: nn.Module) -> None:
        """Nothing: the loop makes the rollouts."""

    def push(self, rollout: Rollout) -> None:
        self.memory.append(rollout.to(self.learner.device))

    def update(self, num_entries: int) -> PolicyUpdate | None:
        metrics = self.learner.update(self.memory)
        self.memory = []
        weights = self.learner.weights()
        if self.max_staleness:
            weights = {name: value.clone() for name, value in weights.items()}
        self._under_way.append(PolicyUpdate(self.learner.version, weights, metrics))
        return self._under_way.pop(0) if len(self._under_way) > self.max_staleness else None

    def drain(self) -> PolicyUpdate | None:
        last = self._under_way[-1] if self._under_way else None
        self._under_way = []
        return last

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()
