"""What the learners tell the driver while they run, and what the driver asks of them."""

from __future__ import annotations

from typing import Any


class RunLog:
    """A queue of events towards the driver, and two flags towards the learners.

    Events are dicts with a `kind`: `start`, `metrics`, `note`, `checkpoint`.
    """

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._stop = False
        self._fatal: str | None = None

    def add(self, event: dict[str, Any]) -> None:
        self._events.append(event)

    def drain(self) -> list[dict[str, Any]]:
        """The events since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    def request_stop(self) -> None:
        """Ask the learners to save a checkpoint and end at their next log step."""
        self._stop = True

    def should_stop(self) -> bool:
        return self._stop

    def set_fatal(self, message: str) -> None:
        """Record an error that a restart would only repeat."""
        self._fatal = self._fatal or message

    def fatal(self) -> str | None:
        return self._fatal
