"""How many trials a cluster holds at once, so that none can starve another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError

DRIVER_CPU = 0.01
"""What a trial's own function reserves: it only waits."""
_ROUNDING = 1e-6

Node = Mapping[str, float]
"""`CPU` and `GPU` of a machine."""


@dataclass(frozen=True)
class Need:
    """What one trial reserves while it trains."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    policy_gpus: float
    num_rollout_workers: int = 0
    """Each reserves the CPUs of a learner."""
    rollout_gpus: float = 0.0

    @classmethod
    def of(cls, config: RunConfig) -> Need:
        cluster = config.cluster
        return cls(
            cluster.num_workers,
            cluster.cpus_per_worker,
            float(cluster.use_gpu),
            cluster.policy_gpus,
            config.num_rollout_workers,
            cluster.rollout_gpus if config.num_rollout_workers else 0.0,
        )

    @property
    def total(self) -> dict[str, float]:
        return {
            "CPU": (self.num_workers + self.num_rollout_workers) * self.cpus_per_worker,
            "GPU": self.num_workers * self.gpus_per_worker
            + self.policy_gpus
            + self.num_rollout_workers * self.rollout_gpus,
        }

    def bundles(self, driver_cpu: float) -> list[dict[str, float]]:
        """Largest first: each must find a node."""
        worker = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}
        policy = [{"CPU": 0.0, "GPU": self.policy_gpus}] if self.policy_gpus else []
        maker = {"CPU": self.cpus_per_worker, "GPU": self.rollout_gpus}
        light = [{"CPU": driver_cpu, "GPU": 0.0}]
        return [worker] * self.num_workers + policy + [maker] * self.num_rollout_workers + light

    def __str__(self) -> str:
        learner = f"{self.cpus_per_worker:g} CPU"
        if self.gpus_per_worker:
            learner += f" + {self.gpus_per_worker:g} GPU"
        words = f"{self.num_workers} MAE learner{'s' * (self.num_workers > 1)} x {learner}"
        if self.policy_gpus:
            words += f" + {self.policy_gpus:g} GPU for the policy"
        if self.num_rollout_workers:
            each = f"{self.cpus_per_worker:g} CPU"
            each += f" + {self.rollout_gpus:g} GPU" if self.rollout_gpus else ""
            plural = "s" * (self.num_rollout_workers > 1)
            words += f" + {self.num_rollout_workers} rollout worker{plural} x {each}"
        return words


def most(needs: Sequence[Need]) -> Need:
    """What holds any of them."""
    return Need(
        max(need.num_workers for need in needs),
        max(need.cpus_per_worker for need in needs),
        max(need.gpus_per_worker for need in needs),
        max(need.policy_gpus for need in needs),
        max(need.num_rollout_workers for need in needs),
        max(need.rollout_gpus for need in needs),
    )


def trials_at_once(need: Need, nodes: Sequence[Node], *, driver_cpu: float = DRIVER_CPU) -> int:
    """Trials that fit side by side, each part of each on one node, first fit.

    Args:
        driver_cpu: 0 where the drivers have CPUs of their own.

    Raises:
        UsageError: when not even one fits.
    """
    left = [{kind: node.get(kind, 0.0) for kind in ("CPU", "GPU")} for node in nodes]
    count = 0
    while _place(need.bundles(driver_cpu), left):
        count += 1
    if count:
        return count
    have = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    nodes_in_words = f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
    own = f", and {driver_cpu:g} CPU for itself" if driver_cpu else ""
    largest = max((f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU" for n in nodes), default="")
    raise UsageError(
        f"a trial needs {need}{own}; the cluster's {nodes_in_words} "
        f"with {have['CPU']:g} CPU and {have['GPU']:g} GPU (one has {largest}) cannot hold it: "
        "lower cluster.num_workers, cluster.cpus_per_worker or cluster.policy_gpus"
    )


def _place(bundles: Sequence[Node], left: list[dict[str, float]]) -> bool:
    """Take the bundles from the nodes, all of them or none."""
    trial = [dict(node) for node in left]
    for bundle in bundles:
        node = next(
            (n for n in trial if all(n[k] + _ROUNDING >= v for k, v in bundle.items())), None
        )
        if node is None:
            return False
        for kind, amount in bundle.items():
            node[kind] -= amount
    left[:] = trial
    return True
