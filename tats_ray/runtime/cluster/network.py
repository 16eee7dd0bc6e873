"""How fast the nodes of a cluster talk to each other."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist

from tats_ray.core.errors import TatsError
from tats_ray.runtime.cluster.nodes import LOOK_S, on_node


class ClusterError(TatsError):
    """A cluster whose network cannot do what a run needs."""


def free_address() -> str:
    """Where the ends of an all-reduce can meet on this node."""
    host = ray.util.get_node_ip_address()
    with socket.socket() as free:
        free.bind((host, 0))
        return f"tcp://{host}:{free.getsockname()[1]}"


def talk(rank: int, size: int, address: str, use_gpu: bool, seconds: float) -> float:
    """Sum 64 MiB over all ends for some seconds; GiB/s of this end.

    Raises:
        ClusterError: when a sum is wrong.
    """
    device = torch.device("cuda" if use_gpu else "cpu")
    dist.init_process_group(
        "nccl" if use_gpu else "gloo",
        init_method=address,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    try:
        data = torch.ones(2**24, device=device)
        more, rounds = torch.ones(1, device=device), 0
        start = time.perf_counter()
        while more.item():
            data.fill_(1.0)
            dist.all_reduce(data)
            if data[0].item() != size or data[-1].item() != size:
                raise ClusterError(f"rank {rank}: sum of {size} ones is {data[0].item():g}")
            rounds += 1
            more.fill_(float(time.perf_counter() < start + seconds))
            dist.all_reduce(more, op=dist.ReduceOp.MIN)
        return rounds * data.nbytes / 2**30 / (time.perf_counter() - start)
    finally:
        dist.destroy_process_group()


def all_reduce_speed(nodes: Sequence[str], *, use_gpu: bool, seconds: float = 10.0) -> float:
    """GiB/s of summing 64 MiB over one process on each node, of the slowest.

    Raises:
        ClusterError: when the nodes cannot talk, with torch's reason.
    """
    # Tasks and not actors: on a CPU they find a process that has imported torch already.
    options = {"num_gpus": 1, "max_retries": 0} if use_gpu else {"max_retries": 0}
    replies: list[Any] = []
    try:
        address = ray.get(on_node(nodes[0], free_address).remote(), timeout=LOOK_S)
        replies = [
            on_node(node, talk, **options).remote(rank, len(nodes), address, use_gpu, seconds)
            for rank, node in enumerate(nodes)
        ]
        return min(ray.get(replies, timeout=seconds + LOOK_S))
    except ray.exceptions.RayError as error:
        for reply in replies:
            ray.cancel(reply, force=True)
        cause = getattr(error, "cause", None) or error
        reason = str(cause).strip().splitlines()[-1] if str(cause).strip() else repr(cause)
        raise ClusterError(
            f"the nodes cannot all-reduce over the network: {reason}; host names must not resolve "
            "to 127.0.0.1, or name the network card with GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
        ) from error
