"""Where a run's processes work, and with how many threads."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.runtime.resources.request import ResourceRequest


@dataclass(frozen=True)
class Placement:
    """Who reserves what, and with how many threads they work."""

    request: ResourceRequest
    num_workers: int
    """MAE learners; of an elastic run, the most."""
    threads: int
    """Per learner; 0 divides the cores of each node among the learners on it."""
    learns_policy: bool

    @property
    def threads_in_words(self) -> str:
        count = self.threads
        return f"{counted(count, 'thread') if count else 'as many threads as their node has'} each"

    @property
    def decoders_in_words(self) -> str:
        """The beginning of a list of actors; empty where the learners decode for themselves."""
        count = self.request.decode.count
        return f"{counted(count, 'decode actor')}, " * bool(count)


def usable_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(asked: int, num_neighbours: int) -> int:
    """Torch threads of one of `num_neighbours` processes on this machine; 0 shares all cores."""
    return asked or max(usable_cores() // num_neighbours, 1)


def own_node() -> dict[str, float]:
    """This machine, as a private cluster of its own."""
    return {"GPU": float(torch.cuda.device_count()), "CPU": float(usable_cores())}


def is_private(config: Clustered) -> bool:
    """Whether a run starts a cluster of its own on this machine, and joins no other."""
    return not (config.cluster.address or os.environ.get("RAY_ADDRESS"))


def plan_placement(config: RunConfig) -> Placement:
    """Decide where everything goes, and refuse what this machine alone shows to be impossible.

    Raises:
        UsageError: for a GPU that is not there, or more learners than CPUs, on a private cluster.
    """
    return place(config, learns_policy=find_sampler(config.sampler).learns)


def place(config: Clustered, *, learns_policy: bool = False) -> Placement:
    """`plan_placement` for any kind of learner, with a policy learner or without."""
    cluster, alone = config.cluster, is_private(config)
    request = ResourceRequest.of(config, learns_policy=learns_policy)
    for kind, there in own_node().items() if alone else ():
        if (wanted := request.total[kind]) > there:
            has_none = kind == "GPU" and not there
            way_out = request.without_gpus() if has_none else request.way_out(kinds=[kind])
            raise UsageError(
                f"the run needs {wanted:g} {kind} ({request}), this machine has {there:g}; "
                f"{way_out}, or join a cluster with --cluster.address"
            )
    return Placement(
        request,
        cluster.num_workers,
        # The cores of this machine say nothing about a cluster's.
        threads=threads_of(cluster.threads, cluster.num_workers) if alone else cluster.threads,
        learns_policy=learns_policy,
    )
