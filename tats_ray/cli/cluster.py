"""Commands about machines: this one, a cluster's file, its nodes, and what they install."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tats_ray.cli.command import CommandGroup, MaybePath, MaybeText, PathArg, PlainCommand


@dataclass(frozen=True)
class Doctor(PlainCommand):
    """Check what works on this machine, and say how to fix what does not."""

    node: bool = False
    """Also check what a cluster node needs: an auth token and a host name."""
    lock: MaybePath = None
    """Path of a requirements.lock. The installed Ray and torch must match it."""
    storage: MaybeText = ""
    """Folder that must exist and be writable."""

    def carry_out(self) -> None:
        from tats_ray.cluster.doctor import doctor

        doctor(is_node=self.node, lock=self.lock, storage=self.storage)


@dataclass(frozen=True)
class Lint(PlainCommand):
    """Check a cluster file (cluster.yaml or a KubeRay manifest) before it costs anything."""

    file: PathArg

    def carry_out(self) -> None:
        from tats_ray.cluster.cluster_lint import cluster_lint

        cluster_lint(self.file)


@dataclass(frozen=True)
class ClusterDoctor(PlainCommand):
    """Check every node of a running cluster, and the network between the nodes."""

    address: MaybeText = ""
    """Job server, to run the check from outside. Leave it out on a node of the cluster."""
    storage: MaybeText = ""
    """Folder that all nodes must share."""
    seconds: float = 10.0
    """Megabytes of the all-reduce between the nodes."""

    def carry_out(self) -> None:
        from tats_ray.cluster.cluster_doctor import cluster_doctor, submit_doctor

        if self.address:
            submit_doctor(self.address, storage=self.storage, seconds=self.seconds)
        else:
            cluster_doctor(storage=self.storage, seconds=self.seconds)


@dataclass(frozen=True)
class Wheel(PlainCommand):
    """Build a wheel of this package for the nodes to install."""

    folder: PathArg = Path("dist")

    def carry_out(self) -> None:
        from tats_ray.cluster.wheel import build_wheel

        print(build_wheel(self.folder))


@dataclass(frozen=True)
class Cluster(CommandGroup):
    """Check a cluster file (`lint`) or a running cluster (`doctor`), or build its `wheel`."""

    action: (
        Annotated[Lint, tyro.conf.subcommand("lint")]
        | Annotated[ClusterDoctor, tyro.conf.subcommand("doctor")]
        | Annotated[Wheel, tyro.conf.subcommand("wheel")]
    )
