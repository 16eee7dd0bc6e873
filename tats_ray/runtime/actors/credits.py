"""Decides who may start a rollout, and with which weights; without clock, waiting or Ray."""

from __future__ import annotations

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


class Credits:
    """Bounds how far rollouts can run ahead of the policy updates that learn from them.

    A cycle is opened with one ticket per rollout of its update, and is learned from as a whole.
    Two rules keep the bound, and with it the memory: a cycle is opened only with a policy of at
    most `max_staleness` updates ago, and at most `max_staleness + 1` cycles are open.

    Args:
        per_update: rollouts of one update.

    Raises:
        ValueError: from `open`, when a rule would be broken; callers wait so that it never is.
    """

    def __init__(self, *, per_update: int, max_staleness: int) -> None:
        self.per_update = per_update
        self.max_staleness = max_staleness
        self._free: set[Ticket] = set()
        self._held: dict[Ticket, int] = {}
        self._next: int | None = None
        """The cycle that must be opened next; None before the first."""
        self._open: set[int] = set()

    def open(self, cycle: int, *, step: int, policy_version: int, mae_step: int) -> None:
        """Let the rollouts of the next cycle be made."""
        if self._next is not None and cycle != self._next:
            raise ValueError(f"cycle {cycle} cannot be opened, {self._next} is next")
        if not 0 <= cycle - policy_version <= self.max_staleness:
            raise ValueError(
                f"cycle {cycle} cannot be drawn by policy version {policy_version}: the staleness "
                f"would not be inside [0, {self.max_staleness}]"
            )
        if len(self._open) > self.max_staleness:
            raise ValueError(f"cycle {cycle} cannot be opened, {sorted(self._open)} still are")
        self._open.add(cycle)
        self._next = cycle + 1
        self._free |= {
            Ticket(cycle, index, step, policy_version, mae_step) for index in range(self.per_update)
        }

    def acquire(self, holder: int) -> Ticket | None:
        """The oldest ticket that is free, if any. A holder has one: what it held before is free."""
        self.forfeit(holder)
        if not self._free:
            return None
        ticket = min(self._free)
        self._free.remove(ticket)
        self._held[ticket] = holder
        return ticket

    def forfeit(self, holder: int) -> None:
        """Free the ticket of a holder that was lost. The rollout that it yields stays the same."""
        lost = [ticket for ticket, by in self._held.items() if by == holder]
        for ticket in lost:
            del self._held[ticket]
            self._free.add(ticket)

    def finish(self, ticket: Ticket) -> bool:
        """Take a rollout in; False when another holder of the ticket was sooner."""
        if ticket not in self._free and ticket not in self._held:
            return False
        self._free.discard(ticket)
        self._held.pop(ticket, None)
        return True

    def close(self, cycle: int) -> None:
        """The policy learner has all rollouts of a cycle."""
        self._open.discard(cycle)

    @property
    def free(self) -> bool:
        """Whether a ticket can be had."""
        return bool(self._free)
