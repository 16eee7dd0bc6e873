"""What actors share that outlive incarnations of the run: whose calls they take, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from tats_ray.core.errors import PeerFailedError, StaleError
from tats_ray.runtime.actors.calls import replaced


class Fenced:
    """Base of asyncio actors in which learners wait: here, with a deadline, and not in the caller.

    Every call carries the `incarnation` of the run that it belongs to. `reset`
    begins a new one; late messages of a dead one are refused.

    Raises:
        StaleError: from any call with another incarnation than the last reset's.
        PeerFailedError: from every waiting call once the run was closed with an error.
        TimeoutError: when a deadline passes; the message says what was waited for.
    """

    room: ClassVar[str]
    """What people call it."""

    def __init__(self) -> None:
        self._incarnation = ""
        self._error: str | None = None
        self._changed = asyncio.Condition()

    async def reset(self, incarnation: str) -> None:
        """Begin a new incarnation of the run, with nothing in it."""
        async with self._changed:
            self._incarnation, self._error = incarnation, None
            self._empty()
            self._changed.notify_all()

    async def close(self, incarnation: str, error: str) -> None:
        """End the incarnation with an error, which every waiting call then raises."""
        async with self._changed:
            if incarnation == self._incarnation:
                self._error = error
                self._changed.notify_all()

    def _empty(self) -> None:
        """Forget the last incarnation."""
        raise NotImplementedError

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
            raise StaleError(replaced(self.room, incarnation, self._incarnation))
        if self._error is not None:
            raise PeerFailedError(self._error)
