"""What the figures here are of."""

from __future__ import annotations

import torch


def machine(device: torch.device) -> str:
    return "cpu, 1 thread" if device.type == "cpu" else torch.cuda.get_device_name(device)
