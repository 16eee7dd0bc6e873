"""Where the time of a run goes, by the clock of the device that computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch


@dataclass
class Stopwatch:
    """Seconds spent in each room since the last reading.

    A GPU is behind the host, which only asks for work. So the borders of a room are events among
    the GPU's own work, and nobody waits for them before a reading. A room's time then is that from
    one border to the other on the GPU, where it may also have waited for the host.
    """

    event: Callable[[], Any] | None = None
    """Makes an event of the GPU; None where the host computes."""
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    _waiting: deque[tuple[str, Any, Any]] = field(default_factory=deque)
    """Rooms that the GPU may not have left yet: name, first and last border."""

    @classmethod
    def of(cls, device: torch.device) -> Stopwatch:
        """One by the clock of this device."""
        is_gpu = device.type == "cuda"
        return cls(partial(torch.cuda.Event, enable_timing=True) if is_gpu else None)

    @contextmanager
    def __call__(self, room: str) -> Iterator[None]:
        begin = self._border()
        yield
        end = self._border()
        if self.event is None:
            self._add(room, end - begin)
            return
        self._waiting.append((room, begin, end))
        while self._waiting and self._waiting[0][2].query():
            self._settle()

    def read(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last reading, and the share of them each room took."""
        while self._waiting:
            self._waiting[0][2].synchronize()
            self._settle()
        now = time.perf_counter()
        total = now - self.started
        shares = {room: spent / total for room, spent in self.seconds.items()}
        self.started, self.seconds = now, {}
        return total, shares

    def _border(self) -> Any:
        if self.event is None:
            return time.perf_counter()
        event = self.event()
        event.record()
        return event

    def _settle(self) -> None:
        """Add the oldest room, which the GPU has left."""
        room, begin, end = self._waiting.popleft()
        self._add(room, begin.elapsed_time(end) / 1e3)

    def _add(self, room: str, seconds: float) -> None:
        self.seconds[room] = self.seconds.get(room, 0.0) + seconds
