"""The policy learner as an actor of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
import torch

from tats_ray.config.load import parse_config
from tats_ray.core.errors import StaleError
from tats_ray.core.types import Rollout
from tats_ray.models.kernel_choice import use_faster_form
from tats_ray.models.zoo import build_learned_policy, token_grid
from tats_ray.runtime.actors.calls import GRACE_S, replaced
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.actors.weight_store import POLICY
from tats_ray.runtime.resources.placement import threads_of
from tats_ray.training.compilation import Compiler
from tats_ray.training.policy_learner import PolicyLearner


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
        clips = config.clips_per_rollout * config.cluster.num_workers
        use_faster_form(policy, clips, grid.num_tokens, config.loop.precision, print)
        is_gpu = self._device.type == "cuda"
        Compiler(config.loop.compile, "the policy", print, graphs=is_gpu).policy(policy)
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
