"""What fits into a cluster at the same time, counted exactly; without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.runtime.resources.request import ResourceRequest, listed, summed

PER_UNIT = 10_000
"""The precision to which Ray counts; whole numbers, since 3 // 0.1 is 29."""


def units(amount: float) -> int:
    """A share or number of GPUs or CPUs in whole parts."""
    return round(amount * PER_UNIT)


DRIVER_CPU = 0.01
"""What the function of a sweep's trial reserves: it only waits."""
_MOST_TRIALS = 1000
"""Counted at most: those that reserve nothing fit without end."""


@dataclass(frozen=True)
class Space:
    """Free resources of a node."""

    slots: int
    """Learners and rollout workers that its CPUs hold, which reserve the same of them."""
    gpus: int
    """In parts of a GPU, `PER_UNIT` to the whole, as everywhere here."""

    @classmethod
    def of(cls, request: ResourceRequest, node: Mapping[str, float]) -> Space:
        everyone = request.learners.count + request.rollout.count
        each = units(request.learners.cpu)
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


def trials_at_once(
    request: ResourceRequest,
    nodes: Sequence[Mapping[str, float]],
    *,
    driver_cpu: float = DRIVER_CPU,
) -> int:
    """Trials of a sweep that fit side by side, each process of each on one node, first fit.

    Args:
        driver_cpu: 0 where the drivers have CPUs of their own.

    Raises:
        UsageError: when not even one fits.
    """
    left = [{kind: units(node.get(kind, 0.0)) for kind in summed(nodes)} for node in nodes]
    trial = [*request.processes, {"CPU": driver_cpu}]
    count = 0
    while count < _MOST_TRIALS and _take(trial, left):
        count += 1
    if count:
        return count
    own = f", and {driver_cpu:g} CPU for itself" if driver_cpu else ""
    largest = max((listed(summed([node])) for node in nodes), default="nothing")
    raise UsageError(
        f"a trial needs {request}{own}; the cluster's {counted(len(nodes), 'node')} "
        f"with {listed(summed(nodes))} (one has {largest}) cannot hold it: {request.way_out()}"
    )


def _take(trial: Sequence[Mapping[str, float]], left: list[dict[str, int]]) -> bool:
    """Take what the processes of a trial reserve from the nodes, all of it or nothing."""
    after = [dict(node) for node in left]
    for process in trial:
        wanted = {kind: units(amount) for kind, amount in process.items()}
        node = next((n for n in after if all(n[k] >= v for k, v in wanted.items())), None)
        if node is None:
            return False
        for kind, amount in wanted.items():
            node[kind] -= amount
    left[:] = after
    return True
