"""Actors that stand for Ray Train's controller and its cleaner, which Ray knows by class."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import placement_group

DEADLINE_S = 60.0


class Holder:
    """Reserves something, and has somebody look after it, as Ray Train's controller does."""

    def reserve(self) -> tuple[str, str]:
        group = placement_group([{"CPU": 0.01}])
        assert group.wait(DEADLINE_S)
        cleaner = ray.remote(PlacementGroupCleaner).options(lifetime="detached", num_cpus=0)
        handle: Any = cleaner.remote()
        ray.get(handle.__ray_ready__.remote(), timeout=DEADLINE_S)
        return group.id.hex(), handle._actor_id.hex()


class TrainController(Holder):
    pass


class PlacementGroupCleaner:
    pass


def start(kind: type) -> tuple[Any, str, str]:
    """Handle, what it holds, and who looks after that."""
    holder: Any = ray.remote(kind).options(num_cpus=0).remote()
    return (holder, *ray.get(holder.reserve.remote(), timeout=DEADLINE_S))
