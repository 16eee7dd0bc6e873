"""Many producers of rollouts around the real buffer: none of them computes, all of them push."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from torch import Tensor

from tats_ray.core.types import Rollout
from tats_ray.runtime.actors.ticketed_buffer import TicketedBuffer
from tats_ray.runtime.actors.transfer import to_arrays
from tats_ray.runtime.actors.weight_store import POLICY, WeightStore

_TOKEN = "scale"
_DEADLINE_S = 120.0
_NUM_HOSTS = 2


@dataclass(frozen=True, slots=True)
class Flow:
    """What came through, of what the producers could have made."""

    num_producers: int
    wanted_per_s: float
    """Rollouts per second that the producers would make if nothing held them up."""
    taken_per_s: float
    updates_per_s: float
    peak_bytes: int
    """In the buffer."""
    waiting: float
    """Share of their time that producers waited for tickets."""

    @property
    def share(self) -> float:
        return self.taken_per_s / self.wanted_per_s


class _Producers:
    """An asyncio actor that stands for many rollout workers, which sleep instead of computing."""

    def __init__(self, buffer: Any, arrays: Mapping[str, Any], num_bytes: int) -> None:
        self._buffer, self._num_bytes = buffer, num_bytes
        self._arrays = dict(arrays)

    async def run(self, names: list[int], period_s: float) -> None:
        """Until this actor is ended."""
        await asyncio.gather(*(self._one(name, period_s) for name in names))

    async def _one(self, name: int, period_s: float) -> None:
        while True:
            granted = await self._buffer.acquire.remote(name, 1.0)
            if granted is None:
                continue
            await asyncio.sleep(period_s)
            incarnation, ticket = granted
            await self._buffer.put.remote(
                incarnation, ticket, self._arrays, self._num_bytes, _DEADLINE_S
            )


class _PolicySide:
    """The hand-over part of the policy learner, and the opening of cycles."""

    def __init__(self, buffer: Any, store: Any, weights: Mapping[str, Any]) -> None:
        self._buffer, self._store, self._weights = buffer, store, weights

    def run(self, per_update: int, ahead: int, warm_up_s: float, seconds: float) -> Any:
        """Take, unpack, publish; (rollouts/s, updates/s, buffer's metrics) after the warm-up."""
        for cycle in range(ahead):
            self._open(cycle, 0)
        version, counted_version = 0, 0
        started = last = time.monotonic()
        counted_from = started + warm_up_s
        while time.monotonic() < started + warm_up_s + seconds:
            rollouts = ray.get(
                self._buffer.take.remote(_TOKEN, version, per_update, _DEADLINE_S),
                timeout=2 * _DEADLINE_S,
            )
            for arrays in rollouts:
                Rollout.from_arrays(arrays)
            del rollouts
            version += 1
            ref = ray.put(self._weights)
            ray.get(self._store.publish.remote(_TOKEN, POLICY, version, [ref]), timeout=_DEADLINE_S)
            self._open(version + ahead - 1, version)
            if time.monotonic() < counted_from:
                counted_version, last = version, time.monotonic()
                ray.get(self._buffer.read.remote(), timeout=_DEADLINE_S)
        elapsed = time.monotonic() - last
        updates = (version - counted_version) / elapsed
        return (
            updates * per_update,
            updates,
            ray.get(self._buffer.read.remote(), timeout=_DEADLINE_S),
        )

    def _open(self, cycle: int, version: int) -> None:
        opened = self._buffer.open.remote(
            _TOKEN, cycle, step=cycle, policy_version=version, mae_step=0
        )
        ray.get(opened, timeout=_DEADLINE_S)


def measure_flow(
    rollout: Rollout,
    weights: Mapping[str, Tensor],
    *,
    num_producers: int,
    per_update: int,
    period_s: float,
    seconds: float,
) -> Flow:
    """Let producers make a rollout every `period_s` each, and count what is taken.

    There are tickets for all of them, so what holds them up is the hand-over alone.
    """
    ahead = -(-num_producers // per_update) + 2
    light = {"num_cpus": 0}
    buffer = (
        ray.remote(TicketedBuffer)
        .options(**light)
        .remote(
            max_bytes=ahead * per_update * rollout.num_bytes,
            per_update=per_update,
            max_staleness=ahead - 1,
        )
    )
    store = ray.remote(WeightStore).options(**light).remote()
    ray.get([buffer.reset.remote(_TOKEN), store.reset.remote(_TOKEN)], timeout=_DEADLINE_S)
    policy = (
        ray.remote(_PolicySide).options(**light).remote(buffer, store, to_arrays(dict(weights)))
    )
    arrays = rollout.to_arrays()
    hosts = [
        ray.remote(_Producers).options(**light).remote(buffer, arrays, rollout.num_bytes)
        for _ in range(min(_NUM_HOSTS, num_producers))
    ]
    warm_up_s = 2 * period_s
    names = [list(range(first, num_producers, len(hosts))) for first in range(len(hosts))]
    for host, own in zip(hosts, names, strict=True):
        host.run.remote(own, period_s)
    result = policy.run.remote(per_update, ahead, warm_up_s, seconds)
    taken, updates, read = ray.get(result, timeout=_DEADLINE_S + warm_up_s + seconds)
    for actor in (*hosts, policy, buffer, store):
        ray.kill(actor)
    return Flow(
        num_producers,
        num_producers / period_s,
        taken,
        updates,
        int(read["buffer/bytes"]),
        read["wait/workers"],
    )
