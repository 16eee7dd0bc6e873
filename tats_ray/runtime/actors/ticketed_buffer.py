"""A rollout buffer that also says who may begin a rollout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tats_ray.runtime.actors.credits import Credits, Ticket
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer, require_plain


class TicketedBuffer(RolloutBuffer):
    """What rollout workers talk to: a ticket first, then the rollout that it stands for.

    A worker without a ticket waits here, and that is what slows producers down when the learners
    are slow: rollouts that wait to be learned from are never more than those of
    `max_staleness + 1` updates.

    Args:
        per_update: rollouts of one policy update.
    """

    def __init__(self, *, max_bytes: int, per_update: int, max_staleness: int) -> None:
        super().__init__(max_bytes=max_bytes)
        self._rules = {"per_update": per_update, "max_staleness": max_staleness}
        self._credits = Credits(**self._rules)
        self._lost: set[int] = set()
        self._waits = _Waits()

    async def reset(self, incarnation: str) -> None:
        self._credits = Credits(**self._rules)
        await super().reset(incarnation)

    async def open(
        self, incarnation: str, cycle: int, *, step: int, policy_version: int, mae_step: int
    ) -> None:
        """Let the rollouts of a cycle be made [see `Credits.open`]."""
        async with self._changed:
            self._check(incarnation)
            self._credits.open(cycle, step=step, policy_version=policy_version, mae_step=mae_step)
            self._changed.notify_all()

    async def acquire(self, worker: int, patience_s: float) -> tuple[str, Ticket] | None:
        """The run's incarnation and a ticket; None when none became free within `patience_s`.

        No ticket is no fault: before the policy takes part, and while a checkpoint is written,
        there is nothing to do. So workers ask again, for as long as their driver lets them live.
        """
        self._waits.begin(worker)
        try:
            async with self._changed:
                self._free(worker)
                ready = self._changed.wait_for(
                    lambda: worker in self._lost or (self._error is None and self._credits.free)
                )
                await asyncio.wait_for(ready, patience_s)
                if worker in self._lost:
                    return None
                ticket = self._credits.acquire(worker)
                assert ticket is not None  # waited for
                return self._incarnation, ticket
        except asyncio.TimeoutError:
            return None
        finally:
            self._waits.end(worker)

    async def put(
        self,
        incarnation: str,
        ticket: Ticket,
        rollout: Mapping[str, Any],
        num_bytes: int,
        timeout_s: float,
    ) -> None:
        """Add a ticket's rollout; one that another worker brought meanwhile is let go.

        Raises:
            UsageError: for a rollout that holds anything but numbers and arrays of numbers.
        """
        require_plain(rollout)
        async with self._changed:
            await self._room_for(num_bytes, incarnation, timeout_s)
            if self._credits.finish(ticket):
                self._shelve(ticket.cycle, rollout, num_bytes)

    async def take(
        self, incarnation: str, cycle: int, count: int, timeout_s: float
    ) -> list[Mapping[str, Any]]:
        taken = await super().take(incarnation, cycle, count, timeout_s)
        self._credits.close(cycle)
        return taken

    async def forfeit(self, worker: int) -> None:
        """Let others have the ticket of a worker that is lost for good.

        It may have died while it waited here: what it asked for then is not granted any more.
        """
        async with self._changed:
            self._lost.add(worker)
            self._free(worker)

    async def fail(self, error: str) -> None:
        """End the present incarnation with an error, whichever it is."""
        await self.close(self._incarnation, error)

    async def read(self) -> dict[str, float]:
        return {**await super().read(), "wait/workers": self._waits.read()}

    def _free(self, worker: int) -> None:
        self._credits.forfeit(worker)
        self._changed.notify_all()


class _Waits:
    """Share of their time that workers wait."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._since: dict[int, float] = {}
        self._last_reading = time.monotonic()

    def begin(self, worker: int) -> None:
        self._since[worker] = time.monotonic()

    def end(self, worker: int) -> None:
        now = time.monotonic()
        # A worker that died while it waited may still be here under the name of the next.
        spent = now - self._since.pop(worker, now)
        self._seconds[worker] = self._seconds.get(worker, 0.0) + spent

    def read(self) -> float:
        """Mean over the workers, since the last reading; waits that go on are counted so far."""
        now = time.monotonic()
        for worker in list(self._since):
            self.end(worker)
            self.begin(worker)
        elapsed, self._last_reading = max(now - self._last_reading, 1e-9), now
        total, count = sum(self._seconds.values()), len(self._seconds)
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return min(total / elapsed / count, 1.0) if count else 0.0
