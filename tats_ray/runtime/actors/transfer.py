"""Convert tensors to NumPy arrays and back, wherever they cross processes.

Contiguous numpy crosses Ray's object store without a copy; torch's own pickling is two to four
times slower. What arrives is read-only, so it is copied before torch may write to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def to_arrays(tree: Any) -> Any:
    """Every tensor in nested dicts and lists as a numpy array."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().cpu().contiguous().numpy()
    if isinstance(tree, Mapping):
        return {key: to_arrays(value) for key, value in tree.items()}
    return [to_arrays(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def to_tensors(tree: Any) -> Any:
    """The inverse of `to_arrays`, in memory of its own."""
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(np.array(tree, copy=True))
    if isinstance(tree, Mapping):
        return {key: to_tensors(value) for key, value in tree.items()}
    return [to_tensors(value) for value in tree] if isinstance(tree, list) else tree
