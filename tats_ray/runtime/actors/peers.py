"""The actors that learners talk to."""

from __future__ import annotations

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

    def rooms(self) -> dict[str, str]:
        """Actor id -> what it is."""
        handles = {
            "rollout buffer": self.buffer,
            "weight store": self.store,
            "policy learner": self.policy_learner,
            "run log": self.log,
        }
        return {h._actor_id.hex(): room for room, h in handles.items() if h is not None}
