"""Tensors to numpy arrays and back, at every process border.

Contiguous numpy crosses Ray's object store without a copy; torch's own pickling is two to four
times slower. What arrives is read-only, so it is copied before torch may write to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tats_ray.core.errors import UsageError


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


def require_plain(rollout: Mapping[str, Any]) -> None:
    """Let nothing but numbers and arrays of numbers onto the shelf.

    An object in their place could run code of its own wherever it is looked at. What Ray itself
    runs when it unpickles a message comes before this: there, the cluster's token is the border.

    Raises:
        UsageError: naming the entry and its type.
    """
    for name, value in rollout.items():
        kind = type(value)
        if kind is np.ndarray and value.dtype.kind in "fiub":
            continue
        if kind not in (int, float, bool) or not isinstance(name, str):
            what = f"array of {value.dtype}" if kind is np.ndarray else kind.__qualname__
            raise UsageError(
                f"rollout entry {name!r} is {what}; rollouts hold numbers and arrays of numbers"
            )
