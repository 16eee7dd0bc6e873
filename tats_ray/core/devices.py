"""Devices by name, and their clock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

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
        raise UsageError(f"device {name!r} is not available; this machine has {', '.join(here)}")
    return torch.device(name)


def now(device: torch.device) -> float:
    """Processor time in seconds; on a GPU wall time, once all that was asked of it is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_bytes(device: torch.device) -> int:
    """What a device has free when a run is alone on it; of an absent GPU, what any has."""
    if device.type == "cpu":
        return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_container_limits()])
    if not torch.cuda.is_available():
        return 16 * 2**30
    return torch.cuda.get_device_properties(device).total_memory


def _container_limits() -> Iterator[int]:
    """What Linux lets this container have, bytes; version 2 of its interface, then version 1."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            yield int(Path("/sys/fs/cgroup", name).read_text())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads, and with as many as before afterwards. Also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Precision = Literal["auto", "float32", "bfloat16"]


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, without which it is slower than float32.

    CPUs have them with AMX or AVX512-bf16, GPUs since Ampere. An absent GPU is taken for one.
    """
    if device.type == "cpu":
        with suppress(OSError):
            flags = Path("/proc/cpuinfo").read_text().split()
            return "amx_bf16" in flags or "avx512_bf16" in flags
        return False
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device)[0] >= 8


def decided(precision: Precision, device: torch.device) -> Precision:
    """What `auto` comes to on a device; anything else as it is."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_native_bfloat16(device) else "float32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The arithmetic of the networks; parameters and losses stay float32."""
    precision = decided(precision, device)
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
    )
