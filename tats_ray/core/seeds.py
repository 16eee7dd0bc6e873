"""One root seed, and a random stream of its own for every purpose.

A stream is named, not stored: `stream(seed, "mask", step, rank)` is the same wherever and
whenever it is made. So a run needs no generator state in its checkpoint to continue exactly.
"""

import hashlib

import torch

Name = str | int


def derive(seed: int, *name: Name) -> int:
    """A 63-bit seed for the stream called `name` under the root `seed`."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *name: Name, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator at the start of the stream called `name`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *name))
