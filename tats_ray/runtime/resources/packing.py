"""What fits into a cluster at the same time, counted exactly; without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tats_ray.config.schema import Clustered

PER_UNIT = 10_000
"""The precision to which Ray counts; whole numbers, since 3 // 0.1 is 29."""


def units(amount: float) -> int:
    """A share or number of GPUs or CPUs in whole parts."""
    return round(amount * PER_UNIT)


@dataclass(frozen=True)
class Space:
    """What a node has to give."""

    slots: int
    """Learners and rollout workers that its CPUs hold, which reserve the same of them."""
    gpus: int
    """In parts of a GPU, `PER_UNIT` to the whole, as everywhere here."""

    @classmethod
    def of(cls, config: Clustered, node: Mapping[str, float]) -> Space:
        everyone = config.cluster.fewest_workers + config.num_rollout_workers
        each = units(config.cluster.cpus_per_worker)
        slots = units(node.get("CPU", 0.0)) // each if each else everyone
        return cls(min(slots, everyone), units(node.get("GPU", 0.0)))

    def holds(self, gpus: int) -> int:
        """How many that reserve so much of a GPU."""
        return min(self.slots, self.gpus // gpus) if gpus else self.slots

    def less(self, slots: int, gpus: int) -> Space:
        return Space(self.slots - slots, self.gpus - gpus)


def beside_policy_learner(spaces: Sequence[Space], gpus: int) -> Iterator[list[Space]]:
    """What the policy learner leaves, for each kind of node that could hold it."""
    for host in {space for space in spaces if space.gpus >= gpus} if gpus else spaces[:1]:
        left = list(spaces)
        left[left.index(host)] = host.less(0, gpus)
        yield left


def most_rollout_workers(spaces: Sequence[Space], num_learners: int, own: int, share: int) -> int:
    """Rollout workers that fit beside the learners, however those are divided among the nodes.

    Args:
        own: what each learner reserves of GPUs.
        share: and each worker.

    Returns:
        -1 where the learners do not fit.
    """
    most = {0: 0}  # learners that the nodes so far hold -> workers beside them
    for space in spaces:
        grown: dict[int, int] = {}
        for here in range(space.holds(own) + 1):
            beside = space.less(here, here * own).holds(share)
            for before, workers in most.items():
                held = before + here
                if held <= num_learners:
                    grown[held] = max(grown.get(held, 0), workers + beside)
        most = grown
    return most.get(num_learners, -1)
