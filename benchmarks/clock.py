"""What all benchmarks here measure with."""

from __future__ import annotations

import time

import torch


def now(device: torch.device) -> float:
    """Processor time in seconds; on a GPU wall time, once all that was asked of it is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: torch.device) -> str:
    """What the figures are of."""
    return "cpu, 1 thread" if device.type == "cpu" else torch.cuda.get_device_name(device)
