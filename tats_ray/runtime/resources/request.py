"""What a run reserves of a cluster, computed once from its configuration; without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from tats_ray.config.finetune_schema import Clustered

KINDS = ("GPU", "CPU")
"""What Ray counts, in the order in which people read it."""
DECODE = "decode"
"""Resource of nodes that are meant for decode actors; each of these takes one of it."""


@dataclass(frozen=True)
class Bundle:
    """Processes of one role. Each of them must fit on one node."""

    role: str
    count: int
    """Of an elastic run, the fewest that it starts with."""
    gpu: float
    """Each reserves; CPUs likewise."""
    cpu: float
    count_field: str
    gpu_field: str
    cpu_field: str = "cluster.cpus_per_worker"

    @property
    def each(self) -> dict[str, float]:
        """What one process reserves, zeros left out."""
        amounts = dict(zip(KINDS, (self.gpu, self.cpu), strict=True))
        return {kind: amount for kind, amount in amounts.items() if amount}

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def way_out(self, kinds: Iterable[str]) -> list[str]:
        """Fields that can still be lowered, so that less of these kinds is reserved."""
        fields = [self.count_field] * (self.count > 1 and not self.each.keys().isdisjoint(kinds))
        fields += [self.gpu_field] * ("GPU" in kinds and self.gpu > 0)
        return fields + [self.cpu_field] * ("CPU" in kinds and self.cpu > 0 and self.cpu_field > "")

    def __str__(self) -> str:
        plural = self.count > 1
        words = f"{self.count} {self.role}{'s' * plural} with {listed(self.each)}"
        return f"{words} each" if plural else words


@dataclass(frozen=True)
class ResourceRequest:
    """Who reserves what. Whatever places, counts or explains a run's resources reads it here."""

    learners: Bundle
    policy: Bundle
    """Of count 0 where no policy learns."""
    rollout: Bundle
    decode: Bundle

    @classmethod
    def of(cls, config: Clustered, *, learns_policy: bool = True) -> ResourceRequest:
        cluster = config.cluster
        few = f"cluster.{'min' if cluster.is_elastic else 'num'}_workers"
        gpus, cpus = float(cluster.use_gpu), cluster.cpus_per_worker
        makers = config.num_rollout_workers
        share = cluster.rollout_gpus if makers else 0.0
        makers_field, share_field = "cluster.rollout_workers", "cluster.rollout_gpus"
        policy = (cluster.policy_learners * learns_policy, cluster.policy_gpus * learns_policy, 0.0)
        return cls(
            Bundle("MAE learner", cluster.fewest_workers, gpus, cpus, few, "cluster.use_gpu"),
            # In the synchronous recipe it works while the MAE learners wait: it reserves no CPU.
            Bundle("policy learner", *policy, "cluster.policy_learners", "cluster.policy_gpus"),
            Bundle("rollout worker", makers, share, cpus, makers_field, share_field),
            Bundle("decode actor", config.num_decoders, 0.0, 1.0, "data.num_workers", "", ""),
        )

    @classmethod
    def most(cls, requests: Sequence[ResourceRequest]) -> ResourceRequest:
        """What holds any of them."""
        roles = zip(*(request.bundles for request in requests), strict=True)
        return cls(*(Bundle(*map(max, zip(*map(astuple, role), strict=True))) for role in roles))

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Those that have to be placed first come first."""
        return self.learners, self.policy, self.rollout, self.decode

    @property
    def processes(self) -> list[dict[str, float]]:
        """What each process that reserves anything does."""
        return [b.each for b in self.bundles for _ in range(b.count) if b.each]

    @property
    def total(self) -> dict[str, float]:
        return summed(self.processes)

    def way_out(self, *roles: Bundle, kinds: Iterable[str] = KINDS) -> str:
        """How it can be made smaller, in words; without roles, anywhere."""
        found = dict.fromkeys(
            field for role in roles or self.bundles if role.count for field in role.way_out(kinds)
        )
        numbers = [field for field in found if field != _SWITCH]
        words = [f"lower {_either(numbers)}"] if numbers else []
        if _SWITCH in found:
            words.append(f"set {_SWITCH} false")
        return ", or ".join(words)

    def without_gpus(self) -> str:
        """How it can do without any, in words."""
        found = [bundle.gpu_field for bundle in self.bundles if bundle.count and bundle.gpu]
        return "set " + " and ".join(f"{f} {'false' if f == _SWITCH else 0}" for f in found)

    def __str__(self) -> str:
        return ", ".join(str(bundle) for bundle in self.bundles if bundle.count and bundle.each)


_SWITCH = "cluster.use_gpu"
"""The one field of these that is no number."""


def summed(nodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each kind, what all of them have together."""
    found = list(nodes)
    return {kind: sum(node.get(kind, 0.0) for node in found) for kind in KINDS}


def listed(amounts: Mapping[str, float]) -> str:
    """In words, zeros left out."""
    return " + ".join(f"{amount:g} {kind}" for kind, amount in amounts.items() if amount) or "0 CPU"


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
