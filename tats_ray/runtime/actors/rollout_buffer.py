"""Rollouts on their way from MAE learners or rollout workers to the policy learner.

Without torch, whose import takes longer than all else that this process does to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tats_ray.core.errors import PeerFailedError, StaleError, UsageError
from tats_ray.core.words import counted
from tats_ray.runtime.actors.calls import replaced


class RolloutBuffer:
    """A buffer of rollouts with a byte limit. It never reads a tensor.

    An asyncio actor: waiting calls wait here, with a deadline, and not in the caller. Rollouts
    arrive by value and stay until they are taken, whatever becomes of their producer.

    Every call carries the `incarnation` of the run that it belongs to. `reset`
    begins a new one; late messages of a dead one are refused.

    Raises:
        StaleError: from any call with another incarnation than the last reset's.
        PeerFailedError: from every waiting call once the run was closed with an error.
        TimeoutError: when a deadline passes; the message says what was waited for.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._shelf: dict[int, list[tuple[Mapping[str, Any], int]]] = {}
        """By cycle: a rank that is ahead must not take the place of one that is behind."""
        self._bytes = 0
        self._peak_bytes = 0
        """Since the last reading."""
        self._incarnation = ""
        self._error: str | None = None
        self._changed = asyncio.Condition()

    async def reset(self, incarnation: str) -> None:
        """Empty the shelf for a new incarnation of the run."""
        async with self._changed:
            self._incarnation, self._shelf, self._bytes, self._error = incarnation, {}, 0, None
            self._changed.notify_all()

    async def push(
        self,
        incarnation: str,
        cycle: int,
        rollout: Mapping[str, Any],
        num_bytes: int,
        timeout_s: float,
    ) -> None:
        """Add a rollout to those of a cycle, the memory of one update.

        Waits while the shelf is full. One always fits, however large.

        Raises:
            UsageError: for a rollout that holds anything but numbers and arrays of numbers.
        """
        require_plain(rollout)
        async with self._changed:
            await self._room_for(num_bytes, incarnation, timeout_s)
            self._shelve(cycle, rollout, num_bytes)

    async def take(
        self, incarnation: str, cycle: int, count: int, timeout_s: float
    ) -> list[Mapping[str, Any]]:
        """Wait for the `count` rollouts of a cycle and take them, in order of arrival."""

        def arrived() -> int:
            return len(self._shelf.get(cycle, []))

        async with self._changed:
            await self._until(
                lambda: arrived() >= count,
                incarnation,
                timeout_s,
                lambda: (
                    f"{counted(count, 'rollout')} of cycle {cycle}, of which {arrived()} arrived"
                ),
            )
            taken = self._shelf.pop(cycle)
            self._bytes -= sum(num_bytes for _, num_bytes in taken)
            self._changed.notify_all()
            return [rollout for rollout, _ in taken]

    async def close(self, incarnation: str, error: str) -> None:
        """End the incarnation with an error, which every waiting call then raises."""
        async with self._changed:
            if incarnation == self._incarnation:
                self._error = error
                self._changed.notify_all()

    async def read(self) -> dict[str, float]:
        """Metrics of the time since the last reading."""
        peak, self._peak_bytes = self._peak_bytes, self._bytes
        return {"buffer/bytes": peak}

    async def _room_for(self, num_bytes: int, incarnation: str, timeout_s: float) -> None:
        await self._until(
            lambda: not self._shelf or self._bytes + num_bytes <= self._max_bytes,
            incarnation,
            timeout_s,
            lambda: f"room for {num_bytes} bytes of rollouts",
        )

    def _shelve(self, cycle: int, rollout: Mapping[str, Any], num_bytes: int) -> None:
        self._shelf.setdefault(cycle, []).append((rollout, num_bytes))
        self._bytes += num_bytes
        self._peak_bytes = max(self._peak_bytes, self._bytes)
        self._changed.notify_all()

    async def _until(
        self, ready: Callable[[], bool], incarnation: str, timeout_s: float, what: Callable[[], str]
    ) -> None:
        def over() -> bool:
            return self._error is not None or incarnation != self._incarnation

        try:
            await asyncio.wait_for(self._changed.wait_for(lambda: over() or ready()), timeout_s)
        except asyncio.TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s for {what()}") from None
        self._check(incarnation)

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise StaleError(replaced("rollout buffer", incarnation, self._incarnation))
        if self._error is not None:
            raise PeerFailedError(self._error)


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
