"""Devices by name."""

from __future__ import annotations

import torch

from tats_ray.core.errors import UsageError


def find_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:1` as a device.

    Raises:
        UsageError: for anything else, and for a GPU that this machine does not have.
    """
    gpus = torch.cuda.device_count()
    here = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{index}" for index in range(gpus))]
    if name not in here:
        raise UsageError(f"device {name!r} is not here; this machine has {', '.join(here)}")
    return torch.device(name)
