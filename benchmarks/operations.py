"""How many operations a piece of a step dispatches, and how often it makes the host wait."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher below autograd, views included, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.fetched = 0
        """Numbers that were brought to the host one by one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        self.fetched += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
