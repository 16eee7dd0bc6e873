"""Decides who may start a rollout, and with which weights; without clock, waiting or Ray."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Ticket:
    """The right to make one rollout. It decides all that the rollout holds, whoever makes it."""

    cycle: int
    """Version of the policy that will learn from it."""
    index: int
    """Place among the rollouts of that update."""
    step: int
    """MAE steps that were done when the cycle began."""
    policy_version: int
    """Weights that draw."""
    mae_step: int
    """MAE steps behind the weights that judge."""
    place: int = 0
    """Shard of the buffer that waits for it."""


class Credits:
    """Bounds how far rollouts can run ahead of the policy updates that learn from them.

    A cycle is opened with one ticket per rollout of its update, and is learned from as a whole. It
    is opened only with a policy of at most `max_staleness` updates ago. Since that is published
    once all cycles before it were learned from, at most `max_staleness + 1` of them are under way,
    which bounds the memory, too.

    Args:
        places: of the rollouts of one update, the shard that each goes to.

    Raises:
        ValueError: from `open`, when a rule would be broken; callers wait so that it never is.
    """

    def __init__(self, *, places: Sequence[int], max_staleness: int) -> None:
        self.places = places
        self.max_staleness = max_staleness
        self._free: set[Ticket] = set()
        self._held: dict[Ticket, int] = {}
        self._next: int | None = None
        """The cycle that must be opened next; None before the first."""

    def open(self, cycle: int, *, step: int, policy_version: int, mae_step: int) -> None:
        """Let the rollouts of the next cycle be made.

        What is left of cycles that `policy_version` was learned from is worth nothing any more.
        """
        if self._next is not None and cycle != self._next:
            raise ValueError(f"cycle {cycle} cannot be opened, {self._next} is next")
        if not 0 <= cycle - policy_version <= self.max_staleness:
            raise ValueError(
                f"cycle {cycle} cannot be drawn by policy version {policy_version}: the staleness "
                f"would not be inside [0, {self.max_staleness}]"
            )
        self._next = cycle + 1
        self._free = {ticket for ticket in self._free if ticket.cycle >= policy_version}
        self._held = {t: holder for t, holder in self._held.items() if t.cycle >= policy_version}
        self._free |= {
            Ticket(cycle, index, step, policy_version, mae_step, place)
            for index, place in enumerate(self.places)
        }

    def acquire(self, holder: int, places: Collection[int]) -> Ticket | None:
        """The oldest ticket of these places that is free, if any.

        A holder has one: what it held before is free.
        """
        self.forfeit(holder)
        ticket = min((t for t in self._free if t.place in places), default=None)
        if ticket is not None:
            self._free.remove(ticket)
            self._held[ticket] = holder
        return ticket

    def forfeit(self, holder: int) -> None:
        """Free the ticket of a holder that was lost. The rollout that it yields stays the same."""
        lost = [ticket for ticket, by in self._held.items() if by == holder]
        for ticket in lost:
            del self._held[ticket]
            self._free.add(ticket)

    def finish(self, ticket: Ticket) -> None:
        """Its rollout is where it belongs, whoever made it."""
        self._free.discard(ticket)
        self._held.pop(ticket, None)

    def has_free(self, places: Collection[int]) -> bool:
        """Whether a ticket of these places can be had."""
        return any(ticket.place in places for ticket in self._free)
