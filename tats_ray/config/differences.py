"""Where two configurations differ, and which of their fields change no result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FREE = ("log.", "eval.", "test.", "checkpoint.", "name", "data.num_workers", "data.cache_mb",
        "data.root", "data.reader", "cluster.address", "cluster.threads", "cluster.cpus_per_worker",
        "cluster.max_failures", "cluster.buffer_mb", "cluster.timeout_s",
        "cluster.rollout_workers", "cluster.min_workers", "cluster.policy_place",
        "cluster.nodes_timeout_s", "sampler.recompute", "loop.compile")  # fmt: skip
"""Beginnings of fields that may differ between a run and its continuation: they change nothing
that is computed, but for the last bits (threads, sampler.recompute, loop.compile) and, in an
overlapped run, where it catches up."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted field -> value of a nested configuration."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def deciding(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that change results, flat; no `init` is as good as an empty one."""
    return {
        name: value
        for name, value in flat(tree).items()
        if not name.startswith(FREE) and (name, value) != ("init", "")
    }
