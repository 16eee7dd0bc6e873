"""Commands about machines: this one, a cluster's file, its nodes, and what they install."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tats_ray.cli.command import CommandGroup, MaybePath, MaybeText, PathArg, PlainCommand


@dataclass(frozen=True)
class Doctor(PlainCommand):
    """Say what works on this machine, with a line of help for what does not."""

    node: bool = False
    """Also check what a node of a cluster needs: token, host name."""
    lock: MaybePath = None
    """requirements.lock whose Ray and torch must be installed."""
    storage: MaybeText = ""
    """Folder that must be writable."""

    def carry_out(self) -> None:
        from tats_ray.cluster.doctor import doctor

        doctor(is_node=self.node, lock=self.lock, storage=self.storage)


@dataclass(frozen=True)
class Lint(PlainCommand):
    """Look at a cluster file before it costs anything: cluster.yaml, or a KubeRay manifest."""

    file: PathArg

    def carry_out(self) -> None:
        from tats_ray.cluster.cluster_lint import cluster_lint

        cluster_lint(self.file)


@dataclass(frozen=True)
class ClusterDoctor(PlainCommand):
    """Look at every node of a running cluster, and at the network between them."""

    address: MaybeText = ""
    """Job server to ask from outside; on a node of the cluster leave it out."""
    storage: MaybeText = ""
    """Folder that all nodes should share."""
    seconds: float = 10.0
    """Of the all-reduce between the nodes."""

    def carry_out(self) -> None:
        from tats_ray.cluster.cluster_doctor import cluster_doctor, submit_doctor

        if self.address:
            submit_doctor(self.address, storage=self.storage, seconds=self.seconds)
        else:
            cluster_doctor(storage=self.storage, seconds=self.seconds)


@dataclass(frozen=True)
class Wheel(PlainCommand):
    """Write this package as a wheel, for the nodes to install."""

    folder: PathArg = Path("dist")

    def carry_out(self) -> None:
        from tats_ray.cluster.wheel import build_wheel

        print(build_wheel(self.folder))


@dataclass(frozen=True)
class Cluster(CommandGroup):
    """Work on clusters: `lint` a file, `doctor` a running one, `wheel` for its nodes."""

    action: (
        Annotated[Lint, tyro.conf.subcommand("lint")]
        | Annotated[ClusterDoctor, tyro.conf.subcommand("doctor")]
        | Annotated[Wheel, tyro.conf.subcommand("wheel")]
    )
