"""A place where a run stands still until a test lets it go on.

What a test does to a run must happen at a known step, however slow the machine is and however late
the events come. So the environment itself waits before the batch of a closed step, inside the
learner; the test sees that it waits, acts, and opens the gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import ray
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import list_actors
from tats_ray.envs import TokenSelectionVectorEnv

from tats_ray.training.mae_learner import MAELearner

ENV_ID = "tests.runtime.gate:Tests/Gated-v0"
_NAME = "tests-gate"
_DEADLINE_S = 150.0


class GatedEnv(TokenSelectionVectorEnv):
    """The environment of a run, with a gate before every batch of a learner."""

    def __init__(self, *args: Any, scorer: Any, **kwargs: Any) -> None:
        super().__init__(*args, scorer=scorer, **kwargs)
        self._learner = scorer if isinstance(scorer, MAELearner) else None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        if self._learner is not None:  # else a rollout worker's
            gate = ray.get_actor(_NAME)
            reply = gate.pass_through.remote(self._learner.step, os.getpid())
            time.sleep(ray.get(reply, timeout=_DEADLINE_S))
        return super().reset(**kwargs)


gymnasium.register(ENV_ID.partition(":")[2], vector_entry_point=GatedEnv)


class _GateActor:
    def __init__(self, closed: list[int], pace_s: float) -> None:
        self._pace_s = pace_s
        self._closed = closed
        self._waiting: dict[int, int] = {}
        self._changed = asyncio.Condition()

    async def pass_through(self, step: int, pid: int) -> float:
        """Returns the seconds to rest before the batch."""
        async with self._changed:
            self._waiting[pid] = step
            await self._changed.wait_for(lambda: step not in self._closed)
            self._waiting.pop(pid, None)
        return self._pace_s

    async def waiting(self) -> dict[int, int]:
        """Process -> step that it stands before, of the closed ones."""
        return {pid: step for pid, step in self._waiting.items() if step in self._closed}

    async def open(self, step: int) -> None:
        async with self._changed:
            self._closed.remove(step)
            self._waiting = {}
            self._changed.notify_all()


class Gate:
    """Closed before the batches of some steps, until `act` was called there.

    Args:
        act: what the test does at a step; by step. Called on the driver's thread, once each.
        num_ranks: learners that must stand at the gate first.
        pace_s: rest before each batch, to spread the steps over some time.

    Hand `on_tick` to `launch.run`, and `ENV_ID` to `env.id`.
    """

    def __init__(
        self,
        act: dict[int, Callable[[], None]],
        *,
        num_ranks: int = 1,
        pace_s: float = 0.0,
    ) -> None:
        self._act = act
        self._num_ranks = num_ranks
        self._before = {actor.actor_id for actor in living_actors()}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(_GateActor).options(name=_NAME, num_cpus=0, scheduling_strategy=here)
        self._actor: Any = actor.remote(list(act), pace_s)
        self.passed: list[int] = []

    def steps(self) -> list[int]:
        """Of each learner that stands at the gate: before which step."""
        waiting = ray.get(self._actor.waiting.remote(), timeout=_DEADLINE_S)
        return [step for pid, step in waiting.items() if is_running(pid)]

    def wait_until_left(self, count: int) -> None:
        """Until so many learners stand at the gate: what killed the others takes a moment."""
        deadline = time.monotonic() + _DEADLINE_S
        while len(self.steps()) > count:
            assert time.monotonic() < deadline, f"more than {count} learners are still there"
            time.sleep(0.05)

    def on_tick(self) -> None:
        steps = self.steps()
        for step in sorted(set(steps)):
            if steps.count(step) == self._num_ranks:
                self._act[step]()
                self.passed.append(step)
                ray.get(self._actor.open.remote(step), timeout=_DEADLINE_S)

    def run_pids(self) -> dict[str, list[int]]:
        """Class -> processes of the run's living actors."""
        found: dict[str, list[int]] = {}
        for actor in living_actors():
            if actor.actor_id not in self._before and actor.class_name != _GateActor.__name__:
                found.setdefault(actor.class_name, []).append(actor.pid)
        return found

    def pids(self, class_name: str) -> list[int]:
        """Processes of the run's living actors of a class."""
        return self.run_pids().get(class_name, [])

    def kill(self, class_name: str) -> None:
        """SIGKILL to the first actor of a class; returns when the process is gone."""
        (pid, *_) = self.pids(class_name)
        kill_process(pid)

    def close(self) -> None:
        """Remove the actor, and wait until its name is free for the next one."""
        ray.kill(self._actor)
        deadline = time.monotonic() + _DEADLINE_S
        with contextlib.suppress(ValueError):
            while time.monotonic() < deadline:
                ray.get_actor(_NAME)
                time.sleep(0.1)


class Ambush:
    """Kills the next controller of Ray Train between reserving room and telling its cleaner of it.

    It tells once its learners are up, which takes seconds. It is made to stand still first, so that
    what is seen is how it died.
    """

    def __init__(self) -> None:
        self.group = self.cleaner = ""
        """Ids of what it leaves, hexadecimal."""
        self.learners: list[int] = []
        """That were up when it died: none, or it may have told."""
        self._before = {actor.actor_id for actor in known_actors()}
        self._groups = set(placement_group_table())
        self._thread = threading.Thread(target=self._lie_in_wait, daemon=True)

    def __enter__(self) -> Ambush:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(_DEADLINE_S)

    def _lie_in_wait(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not (groups := set(placement_group_table()) - self._groups):
            assert time.monotonic() < deadline, "no controller reserves anything"
            time.sleep(0.01)
        (self.group,) = groups
        (controller,) = self._new("TrainController")
        os.kill(controller.pid, signal.SIGSTOP)
        (cleaner,) = self._new("PlacementGroupCleaner")
        self.cleaner = cleaner.actor_id
        self.learners = [a.pid for a in self._new("RayTrainWorker") if a.state == "ALIVE"]
        kill_process(controller.pid)

    def _new(self, class_name: str) -> list[Any]:
        return [
            actor
            for actor in known_actors()
            if actor.actor_id not in self._before and actor.class_name == class_name
        ]


def kill_process(pid: int) -> None:
    """SIGKILL, and wait for it to have happened."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _DEADLINE_S
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} does not die"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open(encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    """For a dashboard: the usual one belongs to whichever Ray was first on this machine."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def known_actors() -> list[Any]:
    """In whatever state."""
    return list(list_actors(address=ray.get_runtime_context().gcs_address, limit=10_000))


def living_actors() -> list[Any]:
    return [actor for actor in known_actors() if actor.state == "ALIVE"]
