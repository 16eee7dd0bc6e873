"""Tickets under every order of events: no rollout too stale, none lost, none twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.runtime.actors.credits import Credits, Ticket
from tats_ray.runtime.actors.rollout_buffer import RolloutBuffer
from tats_ray.runtime.actors.ticket_desk import TicketDesk
from tats_ray.runtime.actors.weight_store import WeightStore

CYCLES = 5


class Rooms:
    """MAE learner, policy learner and workers around the ledger, one small move at a time."""

    def __init__(self, per_update: int, staleness: int, num_workers: int) -> None:
        self.per_update, self.staleness = per_update, staleness
        self.ledger = Credits(places=[0] * per_update, max_staleness=staleness)
        self.opened = self.version = 0
        self.held: dict[int, list[Ticket]] = {worker: [] for worker in range(num_workers)}
        """What workers work on; a worker that died goes on to work, unknown to the ledger."""
        self.arrived: dict[int, list[Ticket]] = {cycle: [] for cycle in range(CYCLES)}
        self.learned: list[list[Ticket]] = []

    def moves(self) -> list[Callable[[], None]]:
        """All that can happen next, but for deaths."""
        found: list[Callable[[], None]] = []
        if self.opened < CYCLES and self.version >= self.opened - self.staleness:
            found.append(self.open)
        if self.ledger.has_free({0}):
            found += [lambda w=worker: self.acquire(w) for worker in self.held]
        found += [lambda w=worker: self.put(w) for worker, held in self.held.items() if held]
        if len(self.arrived.get(self.version, [])) == self.per_update:
            found.append(self.learn)
        return found

    def open(self) -> None:
        drawn_by = max(0, self.opened - self.staleness)
        self.ledger.open(self.opened, step=self.opened, policy_version=drawn_by, mae_step=0)
        self.opened += 1

    def acquire(self, worker: int) -> None:
        ticket = self.ledger.acquire(worker, {0})
        if ticket is not None:
            assert ticket.policy_version <= self.version  # its weights are out
            self.held[worker].append(ticket)

    def put(self, worker: int) -> None:
        ticket = self.held[worker].pop(0)
        self.ledger.finish(ticket)
        arrived = self.arrived.get(ticket.cycle)  # the shard lets go what it has or had
        if arrived is not None and ticket not in arrived:
            arrived.append(ticket)
        waiting = sum(len(tickets) for tickets in self.arrived.values())
        assert waiting <= self.per_update * (self.staleness + 1)

    def learn(self) -> None:
        self.learned.append(self.arrived.pop(self.version))
        self.version += 1


@given(
    per_update=st.integers(1, 4),
    staleness=st.integers(0, 3),
    num_workers=st.integers(1, 3),
    choices=st.lists(st.integers(0, 99), max_size=300),
)
def test_no_ticket_is_staler_than_the_bound_lost_or_used_twice_in_any_order(
    per_update: int, staleness: int, num_workers: int, choices: list[int]
) -> None:
    rooms = Rooms(per_update, staleness, num_workers)
    for choice in choices:
        if choice % 10 == 0:  # a worker dies: its ticket is free, and what it sent still arrives
            rooms.ledger.forfeit(choice % num_workers)
        elif moves := rooms.moves():
            moves[choice % len(moves)]()
    while len(rooms.learned) < CYCLES:
        moves = rooms.moves()
        assert moves, "all rooms wait for each other"
        moves[-1]()
    for cycle, tickets in enumerate(rooms.learned):
        assert sorted(t.index for t in tickets) == list(range(per_update))
        assert all(t.cycle == cycle for t in tickets)
        # Exactly so: which weights draw does not depend on who was sooner.
        assert {t.policy_version for t in tickets} == {max(0, cycle - staleness)}


def test_ledger_refuses_a_policy_that_is_too_old_or_not_made_yet() -> None:
    for drawn_by in (2, 6):
        ledger = Credits(places=[0], max_staleness=2)
        with pytest.raises(
            ValueError, match=f"cycle 5 cannot be drawn by policy version {drawn_by}"
        ):
            ledger.open(5, step=0, policy_version=drawn_by, mae_step=0)


def test_ledger_refuses_gaps_between_cycles_and_forgets_those_that_were_learned_from() -> None:
    ledger = Credits(places=[0, 1], max_staleness=1)
    ledger.open(3, step=0, policy_version=3, mae_step=0)
    with pytest.raises(ValueError, match="cycle 5 cannot be opened, 4 is next"):
        ledger.open(5, step=0, policy_version=4, mae_step=0)
    held = ledger.acquire(7, {0})
    assert held == Ticket(3, 0, 0, 3, 0, place=0)
    ledger.open(4, step=1, policy_version=3, mae_step=1)
    ledger.open(5, step=2, policy_version=4, mae_step=2)
    ledger.forfeit(7)  # it died after its rollout had arrived and before it told of it
    assert ledger.acquire(7, {0}) == Ticket(4, 0, 1, 3, 1, place=0)
    assert ledger.acquire(8, {1}) == Ticket(4, 1, 1, 3, 1, place=1)
    assert ledger.acquire(9, {1}) == Ticket(5, 1, 2, 4, 2, place=1)
    assert not ledger.has_free({1})


async def play(
    per_update: int, staleness: int, num_workers: int, pauses: list[int]
) -> tuple[list[int], list[int]]:
    """The actors themselves, without Ray; staleness of each update, and bytes at each take."""
    shards = [RolloutBuffer(max_bytes=per_update * (staleness + 1)) for _ in range(2)]
    places = [index % 2 for index in range(per_update)]
    desk = TicketDesk(places=places, max_staleness=staleness, num_workers=num_workers)
    store = WeightStore(num_kept=staleness + 1)
    turns = iter(pauses * 200)

    async def pause() -> None:
        for _ in range(next(turns)):
            await asyncio.sleep(0)

    async def worker(index: int) -> None:
        while True:
            granted = await desk.acquire(index, index % 2, 60)
            assert granted is not None
            incarnation, ticket = granted
            for name, version in (("policy", ticket.policy_version), ("mae", ticket.mae_step)):
                found, _ = await store.fetch(incarnation, name, version, 60)
                assert found == version  # the store still has what a late worker needs
            await pause()
            made = {"policy_version": ticket.policy_version, "step": 0, "rank": ticket.index}
            await shards[ticket.place].push(incarnation, ticket.cycle, made, 1, 60)
            await pause()
            await desk.finish(incarnation, ticket)

    async def mae_learner() -> None:
        version = 0
        for cycle in range(CYCLES):
            await store.publish("run", "mae", cycle * 10, [cycle])
            await desk.open(
                "run", cycle, step=cycle * 10, policy_version=version, mae_step=cycle * 10
            )
            await pause()
            version, _ = await store.fetch("run", "policy", max(version, cycle + 1 - staleness), 60)

    stale, held = [], []

    async def policy_learner() -> None:
        for version in range(CYCLES):
            taken = [
                await shard.take("run", version, places.count(place), 60)
                for place, shard in enumerate(shards)
                if place in places
            ]
            rollouts = [rollout for part in taken for rollout in part]
            stale.append(version - min(r["policy_version"] for r in rollouts))
            read = [await shard.read() for shard in shards]
            held.append(int(sum(one["buffer/bytes"] for one in read)))
            await pause()
            await store.publish("run", "policy", version + 1, [version + 1])

    for actor in (*shards, desk, store):
        await actor.reset("run")
    await store.publish("run", "policy", 0, [0])
    workers = [asyncio.create_task(worker(index)) for index in range(num_workers)]
    await asyncio.gather(mae_learner(), policy_learner())
    for task in workers:
        task.cancel()
    ended = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in ended)
    return stale, held


@given(
    per_update=st.integers(1, 3),
    staleness=st.integers(0, 2),
    num_workers=st.integers(1, 4),
    pauses=st.lists(st.integers(0, 12), min_size=20, max_size=20),
)
def test_actors_keep_the_bound_and_the_memory_whoever_is_slow(
    per_update: int, staleness: int, num_workers: int, pauses: list[int]
) -> None:
    stale, held = asyncio.run(play(per_update, staleness, num_workers, pauses))
    assert stale == [min(cycle, staleness) for cycle in range(CYCLES)]
    assert max(held) <= per_update * (staleness + 1)


async def opened_desk(places: list[int], num_workers: int) -> TicketDesk:
    desk = TicketDesk(places=places, max_staleness=0, num_workers=num_workers)
    await desk.reset("run")
    await desk.open("run", 0, step=0, policy_version=0, mae_step=0)
    return desk


def test_worker_that_asks_again_gives_up_what_it_held_and_others_are_not_kept_waiting() -> None:
    async def story() -> list[tuple[int, int]]:
        desk = TicketDesk(places=[0, 0], max_staleness=0, num_workers=3)
        shard = RolloutBuffer(max_bytes=9)
        await desk.reset("run")
        await shard.reset("run")
        assert await desk.acquire(0, 0, 0.01) is None  # nothing to do is no fault
        await desk.open("run", 0, step=0, policy_version=0, mae_step=0)
        first, second = [await desk.acquire(worker, 0, 60) for worker in (0, 1)]
        again = await desk.acquire(0, 0, 60)  # worker 0 died, and was started anew
        assert first == again
        waiting = asyncio.create_task(desk.acquire(2, 0, 60))
        await asyncio.sleep(0)
        await desk.forfeit(1)
        third = await waiting
        assert third == second
        for granted in (again, third, second):  # worker 1's own arrives after all
            assert granted is not None
            made = {"step": 0, "rank": granted[1].index}
            await shard.push(granted[0], granted[1].cycle, made, 1, 60)
            await desk.finish(*granted)
        taken = await shard.take("run", 0, 2, 60)
        await shard.push("run", 0, {"step": 0, "rank": 1}, 1, 60)  # later still
        assert (await shard.read(), (await shard.read())["buffer/bytes"]) == (
            {"buffer/bytes": 2},
            0,
        )
        share = (await desk.read())["wait/workers"]
        assert 0 <= share <= 1
        return [(len(taken), int(r["rank"])) for r in taken]

    assert asyncio.run(story()) == [(2, 0), (2, 1)]


def test_worker_that_died_while_it_waited_takes_no_ticket_with_it() -> None:
    async def story() -> list[tuple[str, Ticket] | None]:
        desk = TicketDesk(places=[0], max_staleness=0, num_workers=2)
        await desk.reset("run")
        dead, living = [asyncio.create_task(desk.acquire(worker, 0, 60)) for worker in (1, 0)]
        await asyncio.sleep(0)
        await desk.forfeit(1)
        await desk.open("run", 0, step=0, policy_version=0, mae_step=0)
        return [await dead, await living]

    dead, living = asyncio.run(story())
    assert dead is None
    assert living is not None


def test_rollouts_stay_beside_their_worker_as_long_as_each_shard_has_one() -> None:
    async def place_of(desk: TicketDesk, worker: int, place: int) -> int | None:
        granted = await desk.acquire(worker, place, 0.01)
        return granted and granted[1].place

    async def story() -> None:
        desk = await opened_desk([0, 1, 0, 1], num_workers=2)
        assert await place_of(desk, 0, 0) == 0
        assert (await desk.finish("run", Ticket(0, 0, 0, 0, 0, 0))) is None
        assert await place_of(desk, 0, 0) == 0
        await desk.finish("run", Ticket(0, 2, 0, 0, 0, 0))
        assert await place_of(desk, 0, 0) is None  # the other worker has yet to start
        assert await place_of(desk, 1, 1) == 1
        assert await place_of(desk, 0, 0) is None
        await desk.forfeit(1)  # lost for good, on the last node with the other shard
        assert await place_of(desk, 0, 0) == 1
        await desk.forfeit(1)  # told again
        assert await place_of(desk, 1, 1) is None  # what it still had on its way

    asyncio.run(story())


def test_shard_beside_which_no_worker_is_gets_its_rollouts_from_all() -> None:
    async def story() -> int:
        desk = await opened_desk([0, 1], num_workers=1)
        granted = await desk.acquire(0, 1, 60)
        assert granted is not None
        await desk.finish(*granted)
        other = await desk.acquire(0, 1, 60)
        assert other is not None
        return granted[1].place + 2 * other[1].place

    assert asyncio.run(story()) in (1, 2)
