"""Ray Train's part of a run, on a thread of its own, and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError
from ray.train.torch import TorchTrainer

from tats_ray.config.schema import Clustered
from tats_ray.runtime.causes import first_cause
from tats_ray.runtime.peers import Peers
from tats_ray.runtime.watch import RunFailedError


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    is_finished: bool
    """False when it was asked to stop before its last epoch."""
    message: str
    step: int


class Fit:
    """`trainer.fit()` on a thread of its own, so that the driver can watch.

    Where Ray Train's own controller dies, another one takes over from the newest checkpoint.
    """

    def __init__(
        self, trainer: Callable[[], TorchTrainer], config: Clustered, peers: Peers
    ) -> None:
        self.done = threading.Event()
        self._trainer = trainer
        self._max_failures = config.cluster.max_failures
        self._peers = peers
        self._result: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="fit", daemon=True).start()

    def _run(self) -> None:
        try:
            for attempt in range(self._max_failures + 1):
                try:
                    self._result = self._trainer().fit()
                    return
                except RayActorError as error:
                    if attempt == self._max_failures:
                        raise
                    cause = first_cause(error, self._peers.rooms())
                    self._peers.log.failed.remote(cause, time.time())
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def outcome(self, fatal: str | None) -> Outcome:
        if fatal is not None:
            raise RunFailedError(fatal)
        if self._error is not None:
            cause = first_cause(self._error, self._peers.rooms())
            raise RunFailedError(cause) from self._error
        told = self._result.return_value
        if told["status"] == "failed":
            raise RunFailedError(told["message"])
        return Outcome(told["status"] == "finished", told["message"], told["step"])
