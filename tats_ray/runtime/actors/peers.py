"""The actors that learners talk to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peers:
    """Handles of the actors beside the learners."""

    log: Any
    store: Any = None
    """None where no policy learns apart, as all below."""
    policy_learners: Sequence[Any] = ()
    shards: Sequence[Any] = ()
    """Of the rollout buffer: one for each policy learner."""
    desk: Any = None
    """Where rollout workers get their tickets; None where there are none."""
    decoders: Sequence[Any] = ()
    """Decode actors of all ranks; none where the learners decode for themselves."""

    @property
    def all(self) -> list[Any]:
        """Those that there are."""
        return [handle for _, handle in self._named()]

    def rooms(self) -> dict[str, str]:
        """Actor id -> what it is."""
        return {handle._actor_id.hex(): room for room, handle in self._named()}

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield "run log", self.log
        for room, handles in (
            ("rollout buffer", self.shards),
            ("policy learner", self.policy_learners),
            ("decode actor", self.decoders),
        ):
            for handle in handles:
                yield room, handle
        for room, handle in (("weight store", self.store), ("ticket desk", self.desk)):
            if handle is not None:
                yield room, handle
