"""Torch in a forked process: it inherits the locks of torch's threads without the threads."""

from __future__ import annotations

import os
from multiprocessing import parent_process

import torch

_process = os.getpid() if parent_process() is None else None
"""The process whose threads torch may use, as far as this module knows."""


def leave_parents_threads() -> None:
    """In a child process, compute with one thread: after a fork, the parent's pool never answers.

    Vector environments of Gymnasium, Stable-Baselines3 and torchrl fork their workers on Linux.
    """
    global _process
    if os.getpid() != _process:
        torch.set_num_threads(1)
        _process = os.getpid()
