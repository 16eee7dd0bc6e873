"""Which machines do the work of a run; every kind of run has these fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tats_ray.core.protocols import ConfigBase
from tats_ray.core.ranges import AtLeastOne, NotNegative, Positive, require

__all__ = ["ClusterConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig(ConfigBase):
    """Which machines do the work."""

    _prefix = "cluster."
    address: str = ""
    """Ray cluster to join. Default: RAY_ADDRESS, or a private cluster on this machine."""
    num_workers: AtLeastOne = 1
    """Number of MAE learners. Each is a Ray Train worker with its own batch."""
    min_workers: int = 0
    """Minimum number of MAE learners with which a run continues while nodes come and go (Ray
    Train's elastic scaling). 0 means num_workers. Fewer learners share the same batches."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """fsdp shards the autoencoder's weights, gradients and moments over the MAE learners, for
    sizes large and huge. ddp keeps a full copy in each. The results are the same."""
    use_gpu: bool = False
    """Use one GPU per MAE learner, and one for the policy learner's share."""
    cpus_per_worker: float = 1
    """CPUs that Ray reserves for each MAE learner and each rollout worker."""
    policy_gpus: float = 0.0
    """GPUs reserved for each policy learner. 0 puts it on the CPU."""
    policy_place: Literal["actor", "learner"] = "actor"
    """Where the policy learns: in its own actor, or inside every MAE learner. There rollouts never
    leave their device, and the learners average the policy's gradients."""
    policy_learners: AtLeastOne = 1
    """Number of policy learners in actors of their own, at most num_workers. Each takes the
    rollouts of its own shard of the buffer, near to where they are made, and they average their
    gradients."""
    gradient_precision: Literal["float32", "bfloat16"] = "float32"
    """Precision in which MAE learners exchange gradients. bfloat16 halves the traffic between
    machines and rounds the sums."""
    rollout_workers: AtLeastOne = 1
    """Number of rollout workers if loop.source is workers. It does not affect the results."""
    rollout_gpus: float = 0.0
    """GPUs reserved for each rollout worker. 0 puts it on the CPU."""
    threads: int = 0
    """Torch threads per learner. 0 divides the cores of each node among its MAE learners."""
    max_failures: int = 3
    """Deaths of processes and nodes that the run survives. Each one restarts the learners."""
    buffer_mb: AtLeastOne = 1024
    """Memory limit of waiting rollouts, MB, in each shard of the buffer. Producers wait when it is
    reached."""
    timeout_s: Positive = 600.0
    """Seconds without a sign of life from a peer before the run gives up and reports it."""
    nodes_timeout_s: NotNegative = 1200.0
    """Maximum wait for nodes that a cluster's autoscaler has yet to start, seconds."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        require(
            0 <= self.min_workers <= self.num_workers,
            "cluster.min_workers",
            self.min_workers,
            f"inside [0, cluster.num_workers {self.num_workers}]",
        )

    @property
    def fewest_workers(self) -> int:
        """MAE learners without which a run does not start."""
        return self.min_workers or self.num_workers

    @property
    def is_elastic(self) -> bool:
        """Whether the number of MAE learners may change during the run."""
        return self.fewest_workers < self.num_workers
