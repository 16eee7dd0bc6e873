"""Torch in a forked process: it inherits the locks of torch's threads without the threads."""

from __future__ import annotations

import os
from multiprocessing import current_process
from multiprocessing.context import ForkProcess

import torch

_process = None if isinstance(current_process(), ForkProcess) else os.getpid()
"""The process whose threads torch may use, as far as this module knows."""


def leave_parents_threads() -> None:
    """In a forked child, compute with one thread, since the pool of the parent would never answer.

    Vector environments of Gymnasium, Stable-Baselines3 and torchrl fork their workers on Linux.
    """
    global _process
    if os.getpid() != _process:
        torch.set_num_threads(1)
        _process = os.getpid()
