"""The policy learner as an actor of its own, and how the loop reaches it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
import torch

from tats_ray.config.load import parse_config
from tats_ray.core.errors import StaleError
from tats_ray.core.types import Rollout
from tats_ray.models.zoo import build_learned_policy, token_grid
from tats_ray.runtime.actors.calls import replaced
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.resources.capacity import threads_of
from tats_ray.training.policy_learner import PolicyLearner, PolicyUpdate

POLICY = "policy"
"""Name of the policy's weights in the store."""
GRACE_S = 30.0
"""An actor's own deadline passes first, and its message says what was missing."""


class PolicyLearnerActor:
    """Takes rollouts from the buffer, improves the policy, publishes the new weights.

    Args:
        device: named outright: Ray does not hide GPUs from actors that reserve none.
        threads: torch threads; 0 takes all cores of its node.
    """

    def __init__(self, config: Mapping[str, Any], *, device: str, threads: int) -> None:
        torch.set_num_threads(threads_of(threads, 1))
        self._config = parse_config(config)
        self._buffer: Any = None
        self._store: Any = None
        self._device = torch.device(device)
        self._incarnation = ""
        self._learner = self._fresh()
        self._idle_since = time.monotonic()

    def _fresh(self) -> PolicyLearner:
        config = self._config
        grid = token_grid(config.data, config.model)
        policy = build_learned_policy(config.sampler, config.model, grid, seed=config.seed)
        policy.to(self._device)
        return PolicyLearner(
            policy,
            config.algorithm.build(policy),
            seed=config.seed,
            precision=config.loop.precision,
        )

    def reset(
        self, incarnation: str, state: Mapping[str, Any] | None, *, buffer: Any, store: Any
    ) -> None:
        """Begin an incarnation of the run, from a checkpoint's state or from the seed.

        The peers are told here and not at the start: Ray can start an actor anew only from
        arguments that hold no handles.
        """
        self._incarnation = incarnation
        self._buffer, self._store = buffer, store
        self._learner = self._fresh()
        if state is not None:
            self._learner.load_state_dict(to_tensors(state))
        self._publish()
        self._idle_since = time.monotonic()

    def update(self, incarnation: str, version: int, num_rollouts: int, timeout_s: float) -> Any:
        """Learn from the next `num_rollouts`, publish, and return scalars.

        Raises:
            StaleError: from another incarnation, or when the policy is not at `version`.
        """
        self._check(incarnation)
        if version != self._learner.version:
            raise StaleError(
                f"update of version {version}, the policy is at {self._learner.version}"
            )
        try:
            reply = self._buffer.take.remote(incarnation, version, num_rollouts, timeout_s)
            arrived = ray.get(reply, timeout=timeout_s + GRACE_S)
            waited = time.monotonic() - self._idle_since
            rollouts = [Rollout.from_arrays(arrays).to(self._device) for arrays in arrived]
            metrics = self._learner.update(rollouts)
            self._publish()
        except Exception as error:
            # The other ranks wait for weights that will not come: tell them why.
            cause = getattr(error, "cause", None) or error
            # Nobody waits for the word to arrive: the store may be what has died.
            self._store.close.remote(incarnation, f"policy learner: {cause}")
            raise
        now = time.monotonic()
        share = waited / max(now - self._idle_since, 1e-9)
        self._idle_since = now
        return {**metrics, "wait/policy": share}

    def state(self, incarnation: str) -> dict[str, Any]:
        """All that a checkpoint needs.

        Raises:
            StaleError: from another incarnation, whose checkpoint would mix two pasts.
        """
        self._check(incarnation)
        return to_arrays(self._learner.state_dict())

    def _publish(self) -> None:
        weights = ray.put(to_arrays(self._learner.weights()))
        version = self._learner.version
        reply = self._store.publish.remote(self._incarnation, POLICY, version, [weights])
        ray.get(reply, timeout=self._config.cluster.timeout_s)

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise StaleError(replaced("policy learner", incarnation, self._incarnation))


class RayPolicyClient:
    """One rank's way to the policy learner: buffer in, weights out [see `PolicyClient`].

    Synchronous: `update` returns when the weights that were learned from this cycle's rollouts
    are here. Rank 0 asks for the update; all ranks wait for its version.
    """

    def __init__(
        self,
        *,
        incarnation: str,
        buffer: Any,
        store: Any,
        learner: Any,
        rank: int,
        num_slots: int,
        version: int,
        max_staleness: int,
        timeout_s: float,
    ) -> None:
        self._incarnation = incarnation
        self._buffer = buffer
        self._store = store
        self._learner = learner
        self._rank = rank
        self._num_slots = num_slots
        self._version = version
        self._requested = version
        """The version that the newest update asked for will make."""
        self._requests: list[Any] = []
        """Replies to updates whose weights are not in use yet, oldest first; on rank 0 only."""
        self._max_staleness = max_staleness
        self._timeout_s = timeout_s
        self._pushes: list[Any] = []

    def current(self) -> Mapping[str, torch.Tensor]:
        return self._fetch(self._version, {}).weights

    def begin(self, step: int, mae: torch.nn.Module) -> None:
        """Nothing: the loop makes the rollouts."""

    def push(self, rollout: Rollout) -> None:
        arrays = rollout.to_arrays()
        self._pushes.append(
            self._buffer.push.remote(
                self._incarnation, self._requested, arrays, rollout.num_bytes, self._timeout_s
            )
        )

    def update(self, num_entries: int) -> PolicyUpdate | None:
        # A full buffer holds its producers up here.
        ray.get(self._pushes, timeout=self._timeout_s + GRACE_S)
        self._pushes = []
        if self._rank == 0:
            self._request(num_entries * self._num_slots)
        return self._next()

    def _request(self, num_rollouts: int) -> None:
        """Have the policy learner make the next version as soon as it has the rollouts."""
        self._requests.append(
            self._learner.update.remote(
                self._incarnation, self._requested, num_rollouts, self._timeout_s
            )
        )

    def _next(self) -> PolicyUpdate | None:
        self._requested += 1
        return self._advance(self._requested - self._max_staleness)

    def drain(self) -> PolicyUpdate | None:
        return self._advance(self._requested)

    def _advance(self, version: int) -> PolicyUpdate | None:
        if version <= self._version:
            return None
        done, self._requests = (
            self._requests[: version - self._version],
            self._requests[version - self._version :],
        )
        metrics = ray.get(done, timeout=self._timeout_s + GRACE_S)
        return self._fetch(version, metrics[-1] if metrics else {})

    def _fetch(self, version: int, metrics: Mapping[str, float]) -> PolicyUpdate:
        """Wait for the weights of a version."""
        reply = self._store.fetch.remote(self._incarnation, POLICY, version, self._timeout_s)
        self._version, (weights,) = ray.get(reply, timeout=self._timeout_s + GRACE_S)
        assert self._version == version  # the store keeps every version that can be asked for
        arrays = ray.get(weights, timeout=self._timeout_s)
        return PolicyUpdate(self._version, to_tensors(arrays), metrics)

    def state_dict(self) -> dict[str, Any]:
        return to_tensors(
            ray.get(self._learner.state.remote(self._incarnation), timeout=self._timeout_s)
        )
