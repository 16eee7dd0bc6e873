"""What the learners tell the driver while they run, and what the driver asks of them."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import Any

from tats_ray.core.errors import StaleError
from tats_ray.core.words import counted
from tats_ray.runtime.actors.calls import replaced


class RunLog:
    """A queue of events towards the driver, and two flags towards the learners.

    Events are dicts with a `kind`: `start`, `metrics`, `note`, `checkpoint`, `unreadable`; and for
    the driver alone `reached` (the newest step that was done) and `failure` (why learners are
    restarted).

    An asyncio actor. An event stays here until the driver says that it has it, and `settle` waits
    for that: so a checkpoint is written only once all rows before it are in the run's files, and a
    restart from it can neither lose one nor double one. Tokens work as in `RolloutBuffer`: what a
    dead incarnation still had on its way is refused, and so is everything once this actor was
    started anew, because it may have lost something.
    """

    def __init__(self) -> None:
        self._life = uuid.uuid4().hex
        self._incarnation = ""
        self._next = 0
        """Number of the event that rank 0 tells next: calls may overtake each other."""
        self._events: list[dict[str, Any]] = []
        self._num_acknowledged = 0
        self._reached: int | None = None
        self._unreadable: dict[str, str] = {}
        self._stop = False
        self._fatal: str | None = None
        self._changed = asyncio.Condition()

    async def reset(self, incarnation: str) -> None:
        """Begin an incarnation of the run. Events of the one before are still for the driver."""
        async with self._changed:
            self._keep_reached()
            self._incarnation, self._next = incarnation, 0
            self._changed.notify_all()

    async def add(self, incarnation: str, number: int, event: dict[str, Any]) -> None:
        """Take event `number` of the incarnation, after those before it.

        Raises:
            StaleError: from another incarnation, or after this actor was started anew.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: incarnation != self._incarnation or number == self._next
            )
            self._check(incarnation)
            self._next += 1
            self._keep_reached()
            self._events.append(event)
            self._changed.notify_all()

    async def reached(self, incarnation: str, step: int) -> None:
        """So many steps are done; the driver is told of the newest only."""
        self._check(incarnation)
        self._reached = max(step, self._reached or 0)

    async def failed(self, cause: str, time: float) -> None:
        """Why the learners are about to be restarted; from Ray Train's controller."""
        await self._append({"kind": "failure", "text": cause, "time": time})

    async def remark(self, text: str, time: float) -> None:
        """A line for people, from a room that outlives incarnations of the run."""
        await self._append({"kind": "note", "text": text, "time": time})

    async def unreadable(self, videos: dict[str, str], time: float) -> None:
        """Videos that cannot be read, with reasons, from any process; each is passed on once."""
        new = {path: why for path, why in videos.items() if path not in self._unreadable}
        if new:
            self._unreadable |= new
            await self._append({"kind": "unreadable", "videos": new, "time": time})

    async def all_unreadable(self) -> dict[str, str]:
        return self._unreadable

    async def settle(self, incarnation: str, timeout_s: float) -> None:
        """Wait until the driver has all events that were added before.

        Raises:
            StaleError: as `add` does.
            TimeoutError: when the driver does not take them.
        """
        async with self._changed:
            self._check(incarnation)
            last = self._num_acknowledged + len(self._events)
            try:
                ready = self._changed.wait_for(lambda: self._num_acknowledged >= last)
                await asyncio.wait_for(ready, timeout_s)
            except asyncio.TimeoutError:
                raise TimeoutError(
                    f"waited {timeout_s:g} s for the driver to write "
                    f"{counted(len(self._events), 'event')}"
                ) from None

    async def drain(
        self, life: str, acknowledged: int, wait_s: float
    ) -> tuple[str, int, list[dict[str, Any]]]:
        """The events that the driver has not acknowledged yet, oldest first.

        Args:
            life: of this actor, as the last call told it; empty at first.
            acknowledged: the number that the last call told, once all its events are in the files.
            wait_s: the longest wait for the first event.

        Returns:
            Life, number of the last event, events.
        """
        async with self._changed:
            if life == self._life:
                self._events = self._events[acknowledged - self._num_acknowledged :]
                self._num_acknowledged = acknowledged
                self._changed.notify_all()
            with suppress(asyncio.TimeoutError):
                ready = self._changed.wait_for(lambda: bool(self._events))
                await asyncio.wait_for(ready, wait_s)
            last = self._num_acknowledged + len(self._events)
            events = list(self._events)
            if self._reached is not None:
                events.append({"kind": "reached", "step": self._reached})
        return self._life, last, events

    async def request_stop(self) -> None:
        """Ask the learners to save a checkpoint and end at their next log step."""
        self._stop = True

    async def should_stop(self) -> bool:
        return self._stop

    async def set_fatal(self, message: str) -> None:
        """Record an error that a restart would only repeat."""
        self._fatal = self._fatal or message

    async def fatal(self) -> str | None:
        return self._fatal

    async def _append(self, event: dict[str, Any]) -> None:
        async with self._changed:
            self._keep_reached()
            self._events.append(event)
            self._changed.notify_all()

    def _keep_reached(self) -> None:
        """Before what comes next, so that the driver hears in order."""
        if self._reached is not None:
            self._events.append({"kind": "reached", "step": self._reached})
            self._reached = None

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise StaleError(replaced("run log", incarnation, self._incarnation))
