"""How the driver reads the learners' events: deaths, lost steps, silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from tats_ray.config.finetune_schema import Clustered
from tats_ray.core.errors import TatsError
from tats_ray.core.words import counted

Event = Mapping[str, Any]
_POLL_S = 0.5


class RunFailedError(TatsError):
    """A run that ended with an error; the message is its first cause."""


class SilenceError(RunFailedError, TimeoutError):
    """A run of which nothing was heard for so long that it must hang."""


class Watch:
    """Takes events from the run log, in order and each once, and passes on what people see.

    Args:
        log: the actor; it may die and come back.
        on_event: has an event in the run's files when it returns.
        resources: says in words what the run needs, what the cluster has, and how far the run's
            processes have come.
    """

    def __init__(
        self,
        log: Any,
        config: Clustered,
        on_event: Callable[[Event], None],
        resources: Callable[[], str],
    ) -> None:
        self._log = log
        self._on_event = on_event
        self._resources = resources
        self._max_failures = config.cluster.max_failures
        self._timeout_s = config.cluster.timeout_s
        self._is_elastic = config.cluster.is_elastic
        self._life, self._acknowledged = "", 0
        self._reached: int | None = None
        """Newest step that is known to be done; None before the first start."""
        self._failure: Event | None = None
        self._num_learners = 0
        """At the last start."""
        self._num_restarts = 0
        self._heard = time.monotonic()
        self._is_starting = True
        self.wants_stop = False

    def poll(self) -> None:
        """Wait half a second at most for events, and pass them on.

        Raises:
            RunFailedError: when the log will not come back, or the learners were restarted more
                than `cluster.max_failures` times.
            SilenceError: when nothing has come for too long.
        """
        try:
            reply = self._log.drain.remote(self._life, self._acknowledged, _POLL_S)
            life, last, events = ray.get(reply, timeout=self._timeout_s)
            if self.wants_stop:  # a log that was started anew has forgotten it
                ray.get(self._log.request_stop.remote(), timeout=self._timeout_s)
        except ActorUnavailableError:
            time.sleep(_POLL_S)
        except ActorDiedError as error:
            raise RunFailedError(
                f"the run log died more than {counted(self._max_failures, 'time')} "
                "(cluster.max_failures)"
            ) from error
        except GetTimeoutError as error:
            raise RunFailedError(f"the run log did not answer for {self._timeout_s:g} s") from error
        else:
            if self._life not in ("", life):  # a log that dies cannot tell of it
                self._take({"kind": "failure", "text": "the run log died", "time": time.time()})
            for event in events:
                self._take(event)
            self._life, self._acknowledged = life, last
        self._check_silence()

    def _take(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "reached":
            if event["step"] != self._reached:
                self._heard = time.monotonic()
            self._reached = event["step"]
            return
        self._heard = time.monotonic()
        if kind == "failure":
            self._failure = self._failure or event
            self._is_starting = True
            return
        if kind == "start":
            self._started(event)
        self._on_event(event)

    def _started(self, event: Event) -> None:
        self._is_starting = False
        if self._reached is not None:
            lost = max(self._reached - event["step"], 0)
            text = (
                f"lost {counted(lost, 'step')}: restarted from step {event['step']}"
                f"{self._why(event)}"
            )
            self._on_event({"kind": "note", "text": text, "time": event["time"]})
        self._reached, self._failure = event["step"], None
        self._num_learners = event["num_learners"]

    def _why(self, start: Event) -> str:
        before, now = self._num_learners, start["num_learners"]
        if self._failure is None and self._is_elastic:  # costs none of cluster.max_failures
            return f" with {counted(now, 'learner')} instead of {before}: the cluster changed"
        self._num_restarts += 1
        cause = self._failure["text"] if self._failure else "the learners died"
        # Ray Train counts the deaths that one controller of its own has seen.
        if self._num_restarts > self._max_failures:
            raise RunFailedError(
                f"{cause}; the run has already been restarted "
                f"{counted(self._max_failures, 'time')} (cluster.max_failures)"
            )
        after = f", {start['time'] - self._failure['time']:.0f} s" if self._failure else ""
        return (
            f"{after} after {cause}; restart {self._num_restarts} of at most {self._max_failures}"
        )

    def _check_silence(self) -> None:
        """Every wait of a learner has a deadline, so silence beyond two of them is a hang."""
        silent_s, limit_s = time.monotonic() - self._heard, 2 * self._timeout_s + 60
        if silent_s <= limit_s:
            return
        limit = f"{limit_s:g} s (2 x cluster.timeout_s + 60)"
        if self._is_starting:
            cause = f" after {self._failure['text']}" if self._failure else ""
            raise SilenceError(
                f"the learners did not start within {limit}{cause}; {self._resources()}"
            )
        raise SilenceError(f"no step was finished for {limit}; the last one was {self._reached}")
