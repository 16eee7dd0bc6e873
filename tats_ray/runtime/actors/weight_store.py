"""Weights by name and version."""

from __future__ import annotations

from typing import Any, ClassVar

from tats_ray.core.errors import StaleError
from tats_ray.runtime.actors.fenced import Fenced

POLICY = "policy"
"""Name of the policy's weights in the store [see `policy_of`]."""
MAE = "mae"
"""Name of the autoencoder's; their version is the step."""


def policy_of(place: int) -> str:
    """Name of the policy as it was published beside a shard: all have the same, nearest is best."""
    return f"{POLICY} {place}" if place else POLICY


class WeightStore(Fenced):
    """Hands out references to weights, never the weights themselves.

    Args:
        num_kept: versions of a name that are kept; older ones are let go.

    An asyncio actor. References come and go inside a list, so that Ray does not resolve them on
    the way.
    """

    room: ClassVar[str] = "weight store"

    def __init__(self, *, num_kept: int = 1) -> None:
        super().__init__()
        self._num_kept = num_kept
        self._empty()

    def _empty(self) -> None:
        self._kept: dict[str, list[tuple[int, list[Any]]]] = {}

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

        def newest() -> int:
            return self._kept[name][-1][0] if name in self._kept else -1

        def missing() -> str:
            have = newest() if name in self._kept else "none"
            return f"{name} version {min_version}, newest is {have}"

        async with self._changed:
            await self._until(lambda: newest() >= min_version, incarnation, timeout_s, missing)
            return next(kept for kept in self._kept[name] if kept[0] >= min_version)
