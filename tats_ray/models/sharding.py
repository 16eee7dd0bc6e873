"""The autoencoder's weights, gradients and moments spread over the ranks (PyTorch's FSDP2).

For models whose optimiser state is too large for one GPU. The arithmetic is that of
DistributedDataParallel; checkpoints hold whole tensors, so runs may change from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from tats_ray.models.mae import MaskedAutoencoder


def shard(mae: MaskedAutoencoder, world_size: int) -> None:
    """Leave each rank its share of every block, in place; before the optimiser is made.

    From here on every use of the network is a collective: all ranks, in the same order.
    """
    mesh = init_device_mesh(next(mae.parameters()).device.type, (world_size,))
    for block in (*mae.encoder.blocks, *mae.decoder.blocks, mae):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(mae, "embed")


def whole(state: Any) -> Any:
    """Nested state with every shard gathered; a collective where there are shards."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {name: whole(value) for name, value in state.items()}
    return state


def load_whole(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put whole tensors into a network that may be sharded."""
    own = network.state_dict()
    network.load_state_dict({name: _like(own.get(name), w) for name, w in weights.items()})


def load_whole_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put whole moments into the optimiser of a network that may be sharded."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots = {
        index: {name: _like(parameters[index], value) for name, value in slot.items()}
        for index, slot in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": slots})


def _like(reference: Tensor | None, value: Tensor) -> Tensor:
    """`value` sharded as `reference` is, where they are of one shape (step counts are not)."""
    if not isinstance(reference, DTensor) or value.shape != reference.shape:
        return value
    return distribute_tensor(
        value.to(reference.device), reference.device_mesh, reference.placements
    )
