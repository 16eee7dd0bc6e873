"""What handing rollouts and weights from process to process costs, on the real actors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from torch import Tensor

from tats_ray.core.types import Rollout
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.actors.weight_store import POLICY, WeightStore
from tats_ray.runtime.driver.ray_cluster import cluster_settings

_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Handover:
    """Seconds that one step's hand-over takes, each measured alone."""

    push_s: float
    """The MAE learner packs a rollout and has it arrive in the buffer."""
    take_s: float
    """The policy learner takes it and has it as tensors again."""
    publish_s: float
    """The policy learner packs its weights and publishes them."""
    fetch_s: float
    """The MAE learner fetches them and has them as tensors again."""

    @property
    def total_s(self) -> float:
        """As if nothing of it overlapped with anything."""
        return self.push_s + self.take_s + self.publish_s + self.fetch_s


@contextmanager
def bench_cluster(*, store_mb: int) -> Iterator[None]:
    """A private Ray with an object store of this size; one that runs already is used as it is."""
    cluster_settings()
    if ray.is_initialized():
        yield
        return
    ray.init(
        address="local",
        object_store_memory=store_mb * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


class _PolicySide:
    """The policy learner without its learning."""

    def __init__(self, buffer: Any, store: Any, weights: Mapping[str, Any]) -> None:
        self._buffer, self._store = buffer, store
        self._weights = to_tensors(weights)

    def take(self, version: int) -> float:
        start = time.perf_counter()
        (arrays,) = ray.get(
            self._buffer.take.remote("bench", version, 1, _DEADLINE_S), timeout=2 * _DEADLINE_S
        )
        Rollout.from_arrays(arrays)
        return time.perf_counter() - start

    def publish(self, version: int) -> float:
        start = time.perf_counter()
        ref = ray.put(to_arrays(self._weights))
        ray.get(self._store.publish.remote("bench", POLICY, version, [ref]), timeout=_DEADLINE_S)
        return time.perf_counter() - start


def measure_handover(
    rollout: Rollout, weights: Mapping[str, Tensor], *, rounds: int
) -> list[Handover]:
    """Time every part on its own, `rounds` times after one that warms up."""
    light = {"num_cpus": 0}
    buffer = ray.remote(RolloutBuffer).options(**light).remote(max_bytes=4 * rollout.num_bytes)
    store = ray.remote(WeightStore).options(**light).remote()
    ray.get([buffer.reset.remote("bench"), store.reset.remote("bench")], timeout=_DEADLINE_S)
    policy = (
        ray.remote(_PolicySide).options(**light).remote(buffer, store, to_arrays(dict(weights)))
    )

    def one(version: int) -> Handover:
        start = time.perf_counter()
        ray.get(
            buffer.push.remote(
                "bench", version, rollout.to_arrays(), rollout.num_bytes, _DEADLINE_S
            ),
            timeout=2 * _DEADLINE_S,
        )
        pushed = time.perf_counter() - start
        taken, published = ray.get(
            [policy.take.remote(version), policy.publish.remote(version)], timeout=2 * _DEADLINE_S
        )
        start = time.perf_counter()
        _, (ref,) = ray.get(
            store.fetch.remote("bench", POLICY, version, _DEADLINE_S), timeout=2 * _DEADLINE_S
        )
        to_tensors(ray.get(ref, timeout=_DEADLINE_S))
        return Handover(pushed, taken, published, time.perf_counter() - start)

    return [one(version) for version in range(rounds + 1)][1:]
