"""Who may begin a rollout, with which weights, and where it goes. No rollout passes here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar

from tats_ray.runtime.actors.credits import Credits, Ticket
from tats_ray.runtime.actors.fenced import Fenced


class TicketDesk(Fenced):
    """Where rollout workers get a ticket before they make the rollout that it stands for.

    A worker without a ticket waits here, and that is what slows producers down when the learners
    are slow: rollouts that wait to be learned from are never more than those of
    `max_staleness + 1` updates.

    A ticket says which shard of the buffer waits for its rollout. A worker gets those of the shard
    beside it, so that rollouts stay on their node. Tickets of a shard that no living worker is
    beside are for all of them. A rollout is the same whoever makes it.

    Args:
        places: of the rollouts of one update, the shard that each goes to.
        num_workers: that ask for tickets, sooner or later.
    """

    room: ClassVar[str] = "ticket desk"

    def __init__(self, *, places: Sequence[int], max_staleness: int, num_workers: int) -> None:
        super().__init__()
        self._places, self._max_staleness = places, max_staleness
        self._num_workers = num_workers
        self._beside: dict[int, int] = {}
        """Living worker -> shard on its node."""
        self._lost: set[int] = set()
        self._waits = _Waits()
        self._empty()

    def _empty(self) -> None:
        self._credits = Credits(places=self._places, max_staleness=self._max_staleness)

    async def open(
        self, incarnation: str, cycle: int, *, step: int, policy_version: int, mae_step: int
    ) -> None:
        """Let the rollouts of a cycle be made [see `Credits.open`]."""
        async with self._changed:
            self._check(incarnation)
            self._credits.open(cycle, step=step, policy_version=policy_version, mae_step=mae_step)
            self._changed.notify_all()

    async def acquire(
        self, worker: int, place: int, patience_s: float
    ) -> tuple[str, Ticket] | None:
        """The run's incarnation and a ticket; None when none became free within `patience_s`.

        No ticket is no fault: before the policy takes part, and while a checkpoint is written,
        there is nothing to do. So workers ask again, for as long as their driver lets them live.

        Args:
            place: shard that the worker is beside.
        """
        self._waits.begin(worker)
        try:
            async with self._changed:
                if worker not in self._lost:
                    self._beside[worker] = place
                self._free(worker)
                ready = self._changed.wait_for(
                    lambda: (
                        worker in self._lost
                        or (self._error is None and self._credits.has_free(self._served(place)))
                    )
                )
                await asyncio.wait_for(ready, patience_s)
                if worker in self._lost:
                    return None
                ticket = self._credits.acquire(worker, self._served(place))
                assert ticket is not None  # waited for
                return self._incarnation, ticket
        except asyncio.TimeoutError:
            return None
        finally:
            self._waits.end(worker)

    async def finish(self, incarnation: str, ticket: Ticket) -> None:
        """The rollout of a ticket is in its shard."""
        async with self._changed:
            self._check(incarnation)
            self._credits.finish(ticket)

    async def forfeit(self, worker: int) -> None:
        """Let others have the ticket of a worker that is lost for good.

        It may have died while it waited here: what it asked for then is not granted any more.
        """
        async with self._changed:
            self._lost.add(worker)
            self._beside.pop(worker, None)
            self._free(worker)

    async def fail(self, error: str) -> None:
        """End the present incarnation with an error, whichever it is."""
        await self.close(self._incarnation, error)

    async def read(self) -> dict[str, float]:
        """Metrics of the time since the last reading."""
        return {"wait/workers": self._waits.read()}

    def _served(self, place: int) -> set[int]:
        """Shards whose tickets are for a worker beside `place`."""
        if len(self._beside) + len(self._lost) < self._num_workers:
            return {place}  # others have yet to start, and may be beside any
        return {place, *self._places} - (set(self._beside.values()) - {place})

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
