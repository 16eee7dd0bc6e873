"""What the figures here are of."""

from __future__ import annotations

from pathlib import Path

import torch

_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine(device: torch.device) -> str:
    """A GPU by its name, a CPU by the instruction sets that decide its speed."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device)
    known = Path("/proc/cpuinfo")
    flags = known.read_text().split() if known.is_file() else []
    return ", ".join(["cpu, 1 thread", *(name for name in _SETS if name in flags)])
