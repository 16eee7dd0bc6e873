"""Many producers of rollouts around the real buffer: none of them computes, all of them push."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from torch import Tensor

from tats_ray.core.types import Rollout
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.ticket_desk import TicketDesk
from tats_ray.runtime.actors.transfer import to_arrays
from tats_ray.runtime.actors.weight_store import WeightStore, policy_of
from tats_ray.runtime.resources.buffer_shards import shards_of_slots

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
    taken_per_cpu_s: float
    """Rollouts per second of processor time of the busiest process that they pass."""
    busiest: str

    @property
    def share(self) -> float:
        return self.taken_per_s / self.wanted_per_s


class _Shard(RolloutBuffer):
    async def cpu_s(self) -> float:
        return time.process_time()


class _Desk(TicketDesk):
    async def cpu_s(self) -> float:
        return time.process_time()


class _Producers:
    """An asyncio actor that stands for many rollout workers, which sleep instead of computing."""

    def __init__(
        self, desk: Any, shards: Sequence[Any], arrays: Mapping[str, Any], num_bytes: int
    ) -> None:
        self._desk, self._shards, self._num_bytes = desk, shards, num_bytes
        self._arrays = dict(arrays)

    async def run(self, names: list[int], period_s: float) -> None:
        """Until this actor is ended."""
        await asyncio.gather(*(self._one(name, period_s) for name in names))

    async def _one(self, name: int, period_s: float) -> None:
        while True:
            granted = await self._desk.acquire.remote(name, name % len(self._shards), 1.0)
            if granted is None:
                continue
            await asyncio.sleep(period_s)
            incarnation, ticket = granted
            made = {**self._arrays, "step": ticket.step, "rank": ticket.index}
            await self._shards[ticket.place].push.remote(
                incarnation, ticket.cycle, made, self._num_bytes, _DEADLINE_S
            )
            await self._desk.finish.remote(incarnation, ticket)


class _PolicySide:
    """The hand-over part of a policy learner."""

    def __init__(self, place: int, shard: Any, store: Any, weights: Mapping[str, Any]) -> None:
        self._name, self._shard, self._store = policy_of(place), shard, store
        self._weights = weights

    def update(self, version: int, count: int) -> None:
        """Take, unpack, publish."""
        rollouts = ray.get(
            self._shard.take.remote(_TOKEN, version, count, _DEADLINE_S), timeout=2 * _DEADLINE_S
        )
        for arrays in rollouts:
            Rollout.from_arrays(arrays)
        ref = ray.put(self._weights)
        published = self._store.publish.remote(_TOKEN, self._name, version + 1, [ref])
        ray.get(published, timeout=_DEADLINE_S)

    def cpu_s(self) -> float:
        return time.process_time()


class _Site:
    """Desk, shards and policy sides, and the part of a run that has them go on together.

    Args:
        per_update: rollouts of an update.
        ahead: cycles that are open at once.
    """

    def __init__(
        self,
        rollout: Rollout,
        weights: Mapping[str, Tensor],
        *,
        num_producers: int,
        num_shards: int,
        per_update: int,
        ahead: int,
    ) -> None:
        light = {"num_cpus": 0}
        self.places = shards_of_slots([""] * per_update, [""] * num_shards)
        self._ahead = ahead
        most = ahead * self.places.count(0) * rollout.num_bytes
        shard, side = (ray.remote(kind).options(**light) for kind in (_Shard, _PolicySide))
        self.shards: list[Any] = [shard.remote(max_bytes=most) for _ in range(num_shards)]
        self.desk: Any = (
            ray.remote(_Desk)
            .options(**light)
            .remote(places=self.places, max_staleness=ahead - 1, num_workers=num_producers)
        )
        self._store: Any = ray.remote(WeightStore).options(**light).remote()
        fenced = (*self.shards, self.desk, self._store)
        ray.get([actor.reset.remote(_TOKEN) for actor in fenced], timeout=_DEADLINE_S)
        own = ray.put(to_arrays(dict(weights)))
        self.sides: list[Any] = [
            side.remote(place, shard, self._store, own) for place, shard in enumerate(self.shards)
        ]
        for cycle in range(ahead):
            self._open(cycle, 0)
        self.version = 0

    def update(self) -> None:
        """One of all policy sides, and the next cycle is open."""
        counts = [self.places.count(place) for place in range(len(self.sides))]
        sides = zip(self.sides, counts, strict=True)
        done = [side.update.remote(self.version, count) for side, count in sides]
        ray.get(done, timeout=2 * _DEADLINE_S)
        self.version += 1
        self._open(self.version + self._ahead - 1, self.version)

    def cpu_s(self) -> dict[str, float]:
        """Of the processes that rollouts or their tickets pass."""
        named = {f"shard {place}": shard for place, shard in enumerate(self.shards)}
        named |= {f"policy learner {place}": side for place, side in enumerate(self.sides)}
        named["ticket desk"] = self.desk
        asked = [actor.cpu_s.remote() for actor in named.values()]
        return dict(zip(named, ray.get(asked, timeout=_DEADLINE_S), strict=True))

    def read(self) -> dict[str, float]:
        """Metrics since the last reading."""
        shards = ray.get([shard.read.remote() for shard in self.shards], timeout=_DEADLINE_S)
        held = sum(shard["buffer/bytes"] for shard in shards)
        return {"buffer/bytes": held, **ray.get(self.desk.read.remote(), timeout=_DEADLINE_S)}

    def end(self) -> None:
        for actor in (*self.sides, *self.shards, self.desk, self._store):
            ray.kill(actor)

    def _open(self, cycle: int, version: int) -> None:
        opened = self.desk.open.remote(
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
    num_shards: int = 1,
) -> Flow:
    """Let producers make a rollout every `period_s` each, and count what is taken.

    There are tickets for all of them, so what holds them up is the hand-over alone.
    """
    ahead = -(-num_producers // per_update) + 2
    site = _Site(
        rollout,
        weights,
        num_producers=num_producers,
        num_shards=num_shards,
        per_update=per_update,
        ahead=ahead,
    )
    arrays = ray.put(rollout.to_arrays())
    hosts = [
        ray.remote(_Producers)
        .options(num_cpus=0)
        .remote(site.desk, site.shards, arrays, rollout.num_bytes)
        for _ in range(min(_NUM_HOSTS, num_producers))
    ]
    for first, host in enumerate(hosts):
        host.run.remote(list(range(first, num_producers, len(hosts))), period_s)
    warm_until = time.monotonic() + 2 * period_s
    while time.monotonic() < warm_until or site.version == 0:
        site.update()
    site.read()
    before, began, since = site.cpu_s(), time.monotonic(), site.version
    while (elapsed := time.monotonic() - began) < seconds or site.version == since:
        site.update()
    updates = site.version - since
    read, after = site.read(), site.cpu_s()
    for host in hosts:
        ray.kill(host)
    site.end()
    spent = {name: after[name] - before[name] for name in after}
    busiest = max(spent, key=lambda name: spent[name])
    return Flow(
        num_producers,
        num_producers / period_s,
        updates * per_update / elapsed,
        updates / elapsed,
        int(read["buffer/bytes"]),
        read["wait/workers"],
        updates * per_update / max(spent[busiest], 1e-9),
        busiest,
    )
