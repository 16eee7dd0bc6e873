"""Events reach the driver in order and once, whatever dies; what was lost is never passed over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tats_ray.core.errors import StaleError
from tats_ray.runtime.actors.run_log import RunLog


def event(name: str) -> dict[str, Any]:
    return {"kind": "note", "text": name}


class Driver:
    """Takes events as `Watch` does."""

    def __init__(self) -> None:
        self.life, self.acknowledged = "", 0
        self.heard: list[dict[str, Any]] = []

    async def poll(self, log: RunLog, *, dies_before_it_has_them: bool = False) -> None:
        life, last, events = await log.drain(self.life, self.acknowledged, 0.0)
        if not dies_before_it_has_them:
            self.heard += events
            self.life, self.acknowledged = life, last

    @property
    def texts(self) -> list[str]:
        return [e["text"] for e in self.heard if e["kind"] == "note"]


def test_events_that_overtake_each_other_are_heard_in_order() -> None:
    async def story() -> list[str]:
        log, driver = RunLog(), Driver()
        await log.reset("run")
        late = [asyncio.create_task(log.add("run", n, event(str(n)))) for n in (2, 1)]
        await asyncio.sleep(0)
        await driver.poll(log)
        assert driver.texts == []
        await log.add("run", 0, event("0"))
        await asyncio.gather(*late)
        await driver.poll(log)
        return driver.texts

    assert asyncio.run(story()) == ["0", "1", "2"]


def test_events_of_a_dead_incarnation_are_refused_and_those_that_came_before_are_heard() -> None:
    async def story() -> list[str]:
        log, driver = RunLog(), Driver()
        await log.reset("old")
        await log.add("old", 0, event("in time"))
        waiting = asyncio.create_task(log.add("old", 5, event("never")))
        await asyncio.sleep(0)
        await log.reset("new")
        with pytest.raises(StaleError, match="incarnation old was replaced by new"):
            await waiting
        with pytest.raises(StaleError):
            await log.add("old", 1, event("late"))
        with pytest.raises(StaleError):
            await log.reached("old", 7)
        await log.add("new", 0, event("new"))
        await driver.poll(log)
        return driver.texts

    assert asyncio.run(story()) == ["in time", "new"]


def test_log_that_was_started_anew_refuses_the_run_because_it_may_have_lost_something() -> None:
    async def story() -> None:
        log = RunLog()
        for call in (log.add("run", 3, event("x")), log.reached("run", 3), log.settle("run", 1)):
            with pytest.raises(StaleError, match="the run log died and was restarted empty"):
                await call

    asyncio.run(story())


def test_settling_waits_until_the_driver_has_what_was_told_and_says_when_it_does_not() -> None:
    async def story() -> None:
        log, driver = RunLog(), Driver()
        await log.reset("run")
        await log.add("run", 0, event("row"))
        with pytest.raises(TimeoutError, match=r"waited 0.01 s for the driver to write 1 event"):
            await log.settle("run", 0.01)
        await driver.poll(log)  # it has them, and says so with its next call
        with pytest.raises(TimeoutError):
            await log.settle("run", 0.01)
        settled = asyncio.create_task(log.settle("run", 10))
        await driver.poll(log)
        await settled

    asyncio.run(story())


def test_driver_hears_how_far_the_learners_were_before_it_hears_of_their_restart() -> None:
    async def story() -> list[dict[str, Any]]:
        log, driver = RunLog(), Driver()
        await log.reset("old")
        for step in (3, 5, 4):  # the last two overtook each other
            await log.reached("old", step)
        await log.failed("the store died", 1.0)
        await log.reset("new")
        await log.add("new", 0, event("start"))
        await driver.poll(log)
        return driver.heard

    kinds = asyncio.run(story())
    assert [(e["kind"], e.get("step")) for e in kinds] == [
        ("reached", 5),
        ("failure", None),
        ("note", None),
    ]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["tell", "poll", "broken poll", "restart"]), max_size=25))
def test_what_settles_is_heard_exactly_once_in_any_order_of_things(actions: list[str]) -> None:
    """A learner restarts when the log refuses it, and tells everything since its checkpoint again.

    As in a run: told in order, settled before each checkpoint; a start rewinds what was heard.
    """

    async def story() -> None:
        log, driver = RunLog(), Driver()
        incarnation, number, row, saved = 0, 0, 0, 0
        await log.reset("0")

        async def start() -> None:
            nonlocal incarnation, number, row
            incarnation, number, row = incarnation + 1, 1, saved
            await log.reset(str(incarnation))
            await log.add(str(incarnation), 0, {"kind": "start", "step": saved})

        for action in [*actions, "tell", "poll", "poll"]:
            if action == "restart":
                log = RunLog()
            elif action == "tell":
                try:
                    await log.add(str(incarnation), number, {"kind": "row", "step": row + 1})
                    number, row = number + 1, row + 1
                    await log.settle(str(incarnation), 0.0)
                    saved = row
                except StaleError:
                    await start()
                except TimeoutError:
                    pass  # the driver has not polled: no checkpoint
            else:
                await driver.poll(log, dies_before_it_has_them=action == "broken poll")
        rows: list[int] = []
        for e in driver.heard:
            if e["kind"] == "start":
                rows = [step for step in rows if step <= e["step"]]
            elif e["kind"] == "row":
                rows.append(e["step"])
        assert len(set(rows)) == len(rows)
        assert set(range(1, saved + 1)) <= set(rows)

    asyncio.run(story())
