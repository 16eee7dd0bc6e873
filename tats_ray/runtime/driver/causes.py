"""Why a run failed, in one line: the first cause, without wrappers or consequences."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ray.exceptions import RayActorError
from ray.train import ControllerError, UserCallback

from tats_ray.core.errors import PeerFailedError, PeerLostError, StaleError

ROOMS = {
    "RolloutBuffer": "rollout buffer",
    "TicketDesk": "ticket desk",
    "WeightStore": "weight store",
    "PolicyLearnerActor": "policy learner",
    "RunLog": "run log",
    "ClipDecoderActor": "decode actor",
    "TrainController": "controller of Ray Train",
    "RayTrainWorker": "learner",
}
"""Actors by class, in the words of the documentation."""

Rooms = Mapping[str, str]
"""Actor id -> room: an actor that is not available is named by its id alone."""


class TellFailures(UserCallback):
    """Tells the run log why Ray Train restarts the learners; lives in its controller."""

    def __init__(self, log: Any, rooms: Rooms) -> None:
        self._log = log
        self._rooms = rooms

    def after_exception(
        self, run_context: Any, worker_exceptions: Mapping[int, BaseException]
    ) -> None:
        # Nobody waits: this must not fail where the log itself is what has died.
        self._log.failed.remote(_of_ranks(worker_exceptions, self._rooms), time.time())


def first_cause(error: BaseException, rooms: Rooms) -> str:
    """The innermost message."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        return _of_ranks(failures, rooms)
    *_, inner = _chain(error)
    if isinstance(inner, RayActorError):
        return _death(inner, rooms)
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    if isinstance(inner, (StaleError, PeerFailedError)) and lines:
        return lines[-1]
    return f"{type(inner).__name__}: {lines[-1] if lines else 'no message'}"


def is_death(error: BaseException) -> bool:
    """Whether the controller of Ray Train died, or ended because an actor that it needs did.

    It restarts learners itself, but not where one dies just as it is told to begin.
    """
    if isinstance(error, RayActorError):
        return True
    return isinstance(error, ControllerError) and any(
        isinstance(inner, RayActorError) for inner in _chain(error)
    )


def _of_ranks(failures: Mapping[int, BaseException], rooms: Rooms) -> str:
    """The cause among several ranks' errors: a death comes before what it did to others."""
    rank, error = min(failures.items(), key=lambda item: (_severity(item[1]), item[0]))
    if _severity(error) == 0:
        where = " with its node" if "node has died" in str(error) else ""
        return f"the learner of rank {rank} died{where}"
    if any(isinstance(i, PeerLostError) or "gloo" in str(i).lower() for i in _chain(error)):
        return f"rank {rank} lost its connection to another learner"  # whose death is not known yet
    cause = first_cause(error, rooms)
    return cause if _severity(error) == 1 else f"rank {rank}: {cause}"


def _severity(error: BaseException) -> int:
    if "HealthCheckFailed" in type(error).__name__ or "RayTrainWorker" in str(error)[:200]:
        return 0
    deaths = (StaleError, RayActorError)
    return 1 if any(isinstance(inner, deaths) for inner in _chain(error)) else 2


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies inside of it, outermost first."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while isinstance(inner, BaseException) and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        within = getattr(inner, "cause", None) or getattr(inner, "controller_failure", None)
        # The last one names its own cause, with more words than that has.
        inner = within or (None if isinstance(inner, PeerFailedError) else inner.__cause__)


def _death(error: RayActorError, rooms: Rooms) -> str:
    found = re.search(r"class_name: (\w+)", str(error))
    room = rooms.get(error.actor_id or "") or (ROOMS.get(found[1]) if found else None)
    where = " with its node" if "node has died" in str(error) else ""
    return f"the {room or 'actor ' + str(error.actor_id)} died{where}"
