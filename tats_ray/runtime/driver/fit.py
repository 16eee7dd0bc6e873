"""Ray Train's part of a run, on a thread of its own, and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ray.exceptions import RayActorError
from ray.train import ControllerError
from ray.train.torch import TorchTrainer

from tats_ray.config.finetune_schema import Clustered
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.driver.causes import first_cause, is_death
from tats_ray.runtime.driver.reap import reap, started_by, this_task
from tats_ray.runtime.driver.watch import RunFailedError

_END_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    is_finished: bool
    """False when it was asked to stop before its last epoch."""
    message: str
    step: int


class TrainerThread:
    """`trainer.fit()` on a thread of its own, so that the driver can watch.

    Where Ray Train's own controller dies, or gives up because of a death, another one takes over
    from the newest checkpoint. As a context manager, it ends the controller with the run, and
    leaves nothing reserved.
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
        self._task: Any = None
        self._is_over = False
        threading.Thread(target=self._run, name="fit", daemon=True).start()

    def __enter__(self) -> TrainerThread:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        deadline = time.monotonic() + _END_S
        while not self.done.is_set() and time.monotonic() < deadline:
            if self._task is not None:
                reap(started_by(self._task))
            self.done.wait(0.2)
        reap()

    def _run(self) -> None:
        self._task = this_task()
        try:
            for attempt in range(self._max_failures + 1):
                try:
                    self._result = self._trainer().fit()
                    return
                except (RayActorError, ControllerError) as error:
                    if attempt == self._max_failures or self._is_over or not is_death(error):
                        raise
                    cause = first_cause(error, self._peers.rooms())
                    self._peers.log.failed.remote(cause, time.time())
                    reap()  # what it held, the next one needs
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
