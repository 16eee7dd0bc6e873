"""The actors that learners talk to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peers:
    """Handles of the actors beside the learners."""

    buffer: Any
    store: Any
    policy_learner: Any | None
    """None where the sampler does not learn, as both above."""
    log: Any
    decoders: Sequence[Any] = ()
    """Decode actors of all ranks; none where the learners decode for themselves."""

    def rooms(self) -> dict[str, str]:
        """Actor id -> what it is."""
        handles = {
            "rollout buffer": self.buffer,
            "weight store": self.store,
            "policy learner": self.policy_learner,
            "run log": self.log,
        }
        rooms = {h._actor_id.hex(): room for room, h in handles.items() if h is not None}
        return rooms | {h._actor_id.hex(): "decode actor" for h in self.decoders}
