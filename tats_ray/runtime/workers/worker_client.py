"""The MAE learners' way to the policy learner where rollout workers make the rollouts."""

from __future__ import annotations

from typing import Any

import ray
from torch import nn

from tats_ray.core.types import Rollout
from tats_ray.runtime.actors.policy_learner_actor import RayPolicyClient
from tats_ray.runtime.actors.transfer import to_arrays
from tats_ray.training.policy_learner import PolicyUpdate

MAE = "mae"
"""Name of the autoencoder's weights in the store; their version is the step."""


class WorkerFedClient(RayPolicyClient):
    """Opens a cycle when its first MAE step begins, and asks for its update at the same time.

    So the MAE learners set the pace, and all three rooms work at once: workers make the rollouts
    of the cycle that the MAE learners are in. What a rollout holds is decided here, by the
    cycle's number: drawn by the policy that the MAE learners use, judged by the MAE of
    `publish_every` cycles ago at most.

    Args:
        per_update: rollouts of one update.
        publish_every: cycles between two copies of the MAE.
    """

    def __init__(self, *, per_update: int, publish_every: int, **parts: Any) -> None:
        super().__init__(**parts)
        self._per_update = per_update
        self._publish_every = publish_every
        self._mae_step: int | None = None
        """Of the newest copy that is out."""

    def begin(self, step: int, mae: nn.Module) -> None:
        if self._rank != 0:
            return
        cycle = self._requested
        if self._mae_step is None or cycle % self._publish_every == 0:
            self._publish(step, mae)
        opened = self._buffer.open.remote(
            self._incarnation,
            cycle,
            step=step,
            policy_version=self._version,
            mae_step=self._mae_step,
        )
        ray.get(opened, timeout=self._timeout_s)
        self._request(self._per_update)

    def push(self, rollout: Rollout) -> None:
        raise AssertionError("rollouts of this run are the workers'")

    def update(self, num_entries: int) -> PolicyUpdate | None:
        return self._next()

    def drain(self) -> PolicyUpdate | None:
        # As a run that is continued from here would: it has no copy out.
        self._mae_step = None
        return super().drain()

    def _publish(self, step: int, mae: nn.Module) -> None:
        weights = ray.put(to_arrays(mae.state_dict()))
        ray.get(
            self._store.publish.remote(self._incarnation, MAE, step, [weights]),
            timeout=self._timeout_s,
        )
        self._mae_step = step
