"""How the training loop of a rank reaches the policy learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from torch import Tensor, nn

from tats_ray.core.types import Rollout
from tats_ray.runtime.actors.calls import GRACE_S, gather
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.actors.weight_store import MAE, policy_of
from tats_ray.training.policy_learner import PolicyUpdate


class RayPolicyClient:
    """One rank's way to the policy learners: buffer in, weights out [see `PolicyClient`].

    Synchronous: `update` returns when the weights that were learned from this cycle's rollouts
    are here. Rank 0 asks for the update; all ranks wait for its version.

    Args:
        places: of each slot, the shard of the buffer that takes its rollouts.
        beside: the shard whose policy learner is nearest.
    """

    is_remote = True

    def __init__(
        self,
        *,
        incarnation: str,
        peers: Peers,
        places: Sequence[int],
        beside: int,
        rank: int,
        version: int,
        max_staleness: int,
        timeout_s: float,
    ) -> None:
        self._incarnation = incarnation
        self._peers = peers
        self._store: Any = peers.store
        self._places, self._beside = places, beside
        self._rank = rank
        self._version = version
        self._requested = version
        """The version that the newest update asked for will make."""
        self._requests: list[list[Any]] = []
        """Replies of all policy learners to each update whose weights are not in use yet, oldest
        first; on rank 0 only."""
        self._max_staleness = max_staleness
        self._timeout_s = timeout_s
        self._pushes: list[Any] = []

    def learning_policy(self) -> None:
        """None: it is in another process."""

    def current(self) -> Mapping[str, Tensor]:
        return self._fetch(self._version, {}).weights

    def begin(self, step: int, mae: nn.Module) -> None:
        """Nothing: the loop makes the rollouts."""

    def push(self, rollout: Rollout) -> None:
        arrays = rollout.to_arrays()
        shard = self._peers.shards[self._places[rollout.rank]]
        self._pushes.append(
            shard.push.remote(
                self._incarnation, self._requested, arrays, rollout.num_bytes, self._timeout_s
            )
        )

    def update(self, num_entries: int) -> PolicyUpdate | None:
        # A full buffer holds its producers up here.
        ray.get(self._pushes, timeout=self._timeout_s + GRACE_S)
        self._pushes = []
        if self._rank == 0:
            self._request(num_entries)
        return self._next()

    def _request(self, num_entries: int) -> None:
        """Have the policy learners make the next version as soon as they have the rollouts."""
        self._requests.append(
            [
                learner.update.remote(
                    self._incarnation,
                    self._requested,
                    num_entries * self._places.count(place),
                    self._timeout_s,
                )
                for place, learner in enumerate(self._peers.policy_learners)
            ]
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
        told = [gather(replies, self._timeout_s + GRACE_S) for replies in done]
        return self._fetch(version, _of_all(told[-1]) if told else {})

    def _fetch(self, version: int, metrics: Mapping[str, float]) -> PolicyUpdate:
        """Wait for the weights of a version."""
        reply = self._store.fetch.remote(
            self._incarnation, policy_of(self._beside), version, self._timeout_s
        )
        self._version, (weights,) = ray.get(reply, timeout=self._timeout_s + GRACE_S)
        assert self._version == version  # the store keeps every version that can be asked for
        arrays = ray.get(weights, timeout=self._timeout_s)
        return PolicyUpdate(self._version, to_tensors(arrays), metrics)

    def state_dict(self) -> dict[str, Any]:
        return to_tensors(
            ray.get(
                self._peers.policy_learners[0].state.remote(self._incarnation),
                timeout=self._timeout_s,
            )
        )


def _of_all(told: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """What several policy learners tell: the same, but for what they waited."""
    waits = [metrics["wait/policy"] for metrics in told]
    return {**told[0], "wait/policy": sum(waits) / len(waits)}


class WorkerFedClient(RayPolicyClient):
    """Opens a cycle when its first MAE step begins, and asks for its update at the same time.

    So the MAE learners set the pace, and all three rooms work at once: workers make the rollouts
    of the cycle that the MAE learners are in. What a rollout holds is decided here, by the
    cycle's number: drawn by the policy that the MAE learners use, judged by the MAE of
    `publish_every` cycles ago at most.

    Args:
        per_update: MAE steps, for whose rollouts one update is made.
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
        opened = self._peers.desk.open.remote(
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
