"""Rollouts on their way from MAE learners or rollout workers to the policy learner.

Without torch, whose import takes longer than all else that this process does to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import ray

from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.runtime.actors.fenced import Fenced


class RolloutBuffer(Fenced):
    """A buffer of rollouts with a byte limit, or a shard of it. It never reads a tensor.

    An asyncio actor. Rollouts arrive by value and stay until they are taken, whatever becomes of
    their producer. Where there are several policy learners, each has a shard of its own.
    """

    room: ClassVar[str] = "rollout buffer"

    def __init__(self, *, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._peak_bytes = 0
        """Since the last reading."""
        self._empty()

    def _empty(self) -> None:
        self._shelf: dict[int, dict[tuple[int, int], tuple[Mapping[str, Any], int]]] = {}
        """By cycle: a rank that is ahead must not take the place of one that is behind. In it, by
        step and rank: of a rollout that is made twice, the second one is let go."""
        self._bytes = 0
        self._last_taken = -1

    async def node(self) -> str:
        """Id of the node that it is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def push(
        self,
        incarnation: str,
        cycle: int,
        rollout: Mapping[str, Any],
        num_bytes: int,
        timeout_s: float,
    ) -> None:
        """Add a rollout to those of a cycle, the memory of one update.

        Waits while the shelf is full. One always fits, however large. A rollout that is here
        already, or was taken, is let go: two workers may have made it.

        Raises:
            UsageError: for a rollout that holds anything but numbers and arrays of numbers.
        """
        require_plain(rollout)
        key = rollout["step"], rollout["rank"]

        def is_known() -> bool:
            return cycle <= self._last_taken or key in self._shelf.get(cycle, {})

        async with self._changed:
            await self._until(
                lambda: is_known() or not self._shelf or self._bytes + num_bytes <= self._max_bytes,
                incarnation,
                timeout_s,
                lambda: f"room for {num_bytes} bytes of rollouts",
            )
            if not is_known():
                self._shelf.setdefault(cycle, {})[key] = (rollout, num_bytes)
                self._bytes += num_bytes
                self._peak_bytes = max(self._peak_bytes, self._bytes)
                self._changed.notify_all()

    async def take(
        self, incarnation: str, cycle: int, count: int, timeout_s: float
    ) -> list[Mapping[str, Any]]:
        """Wait for the `count` rollouts of a cycle and take them, in order of arrival."""

        def arrived() -> int:
            return len(self._shelf.get(cycle, {}))

        async with self._changed:
            await self._until(
                lambda: arrived() >= count,
                incarnation,
                timeout_s,
                lambda: (
                    f"{counted(count, 'rollout')} of cycle {cycle}, of which {arrived()} arrived"
                ),
            )
            taken = self._shelf.pop(cycle).values()
            self._last_taken = cycle
            self._bytes -= sum(num_bytes for _, num_bytes in taken)
            self._changed.notify_all()
            return [rollout for rollout, _ in taken]

    async def read(self) -> dict[str, float]:
        """Metrics of the time since the last reading."""
        peak, self._peak_bytes = self._peak_bytes, self._bytes
        return {"buffer/bytes": peak}


def require_plain(rollout: Mapping[str, Any]) -> None:
    """Let nothing but numbers and arrays of numbers onto the shelf.

    An object in their place could run code of its own wherever it is looked at. Ray unpickles the
    message before this check, so against strangers it is the cluster's auth token that protects.

    Raises:
        UsageError: naming the entry and its type.
    """
    for name, value in rollout.items():
        kind = type(value)
        if kind is np.ndarray and value.dtype.kind in "fiub":
            continue
        if kind not in (int, float, bool) or not isinstance(name, str):
            what = f"array of {value.dtype}" if kind is np.ndarray else kind.__qualname__
            raise UsageError(
                f"rollout entry {name!r} is {what}; rollouts hold numbers and arrays of numbers"
            )
