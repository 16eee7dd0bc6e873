"""Weights by name and version."""

from __future__ import annotations

import asyncio
from typing import Any

from tats_ray.core.errors import PeerFailedError, StaleError
from tats_ray.runtime.actors.calls import replaced

POLICY = "policy"
"""Name of the policy's weights in the store."""
MAE = "mae"
"""Name of the autoencoder's; their version is the step."""


class WeightStore:
    """Hands out references to weights, never the weights themselves.

    Args:
        num_kept: versions of a name that are kept; older ones are let go.

    An asyncio actor. References come and go inside a list, so that Ray does not resolve them on
    the way. Tokens and errors work as in `RolloutBuffer`.
    """

    def __init__(self, *, num_kept: int = 1) -> None:
        self._num_kept = num_kept
        self._incarnation = ""
        self._error: str | None = None
        self._kept: dict[str, list[tuple[int, list[Any]]]] = {}
        self._changed = asyncio.Condition()

    async def reset(self, incarnation: str) -> None:
        async with self._changed:
            self._incarnation, self._error, self._kept = incarnation, None, {}
            self._changed.notify_all()

    async def publish(self, incarnation: str, name: str, version: int, refs: list[Any]) -> None:
        """Make `version` the newest of `name`.

        Raises:
            StaleError: for a dead incarnation, or a version that is not newer than the last.
        """
        async with self._changed:
            self._check(incarnation)
            kept = self._kept.setdefault(name, [])
            if kept and version <= kept[-1][0]:
                raise StaleError(f"{name} version {version} after {kept[-1][0]}")
            self._kept[name] = [*kept, (version, refs)][-self._num_kept :]
            self._changed.notify_all()

    async def fetch(
        self, incarnation: str, name: str, min_version: int, timeout_s: float
    ) -> tuple[int, list[Any]]:
        """Wait for `min_version` or newer of `name`; the oldest kept version that is.

        Raises:
            StaleError: from a dead incarnation.
            PeerFailedError: once the run was closed with an error.
            TimeoutError: when the deadline passes.
        """

        def ready() -> bool:
            over = self._error is not None or incarnation != self._incarnation
            return over or newest() >= min_version

        def newest() -> int:
            return self._kept[name][-1][0] if name in self._kept else -1

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), timeout_s)
            except asyncio.TimeoutError:
                have = newest() if name in self._kept else "none"
                raise TimeoutError(
                    f"waited {timeout_s:g} s for {name} version {min_version}, newest is {have}"
                ) from None
            self._check(incarnation)
            return next(kept for kept in self._kept[name] if kept[0] >= min_version)

    async def close(self, incarnation: str, error: str) -> None:
        async with self._changed:
            if incarnation == self._incarnation:
                self._error = error
                self._changed.notify_all()

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise StaleError(replaced("weight store", incarnation, self._incarnation))
        if self._error is not None:
            raise PeerFailedError(self._error)
