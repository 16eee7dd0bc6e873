"""The driver's watch over the rollout workers of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from tats_ray.config.finetune_schema import Clustered
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.rollout_worker import RolloutWorkerActor
from tats_ray.runtime.driver import home
from tats_ray.runtime.resources.placement import Placement


class RolloutWorkers:
    """The driver's handles of all rollout workers.

    A lost one is started anew by Ray, `max_restarts` times; after that the run goes on with the
    rest. Rollouts are the same whoever makes them, so neither changes a result.
    """

    def __init__(self, config: Clustered, placement: Placement, peers: Peers) -> None:
        cluster, own = config.cluster, placement.request.rollout
        self._desk, self._log = peers.desk, peers.log
        self._lost: list[int] = []
        self._fatal: str | None = None
        kind = ray.remote(RolloutWorkerActor).options(
            num_cpus=own.cpu,
            num_gpus=own.gpu,
            max_restarts=cluster.max_failures,
            max_task_retries=cluster.max_failures,
            # Spread over nodes, shares of a GPU would break up those that learners need whole.
            scheduling_strategy="DEFAULT" if own.gpu else "SPREAD",
        )
        self._actors = [
            kind.remote(
                asdict(config),
                index=index,
                device=own.device,
                threads=placement.threads or max(int(own.cpu), 1),
                started_in=home.here(),
            )
            for index in range(own.count)
        ]
        self._runs = {actor.run.remote(peers): index for index, actor in enumerate(self._actors)}

    def __enter__(self) -> RolloutWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def watch(self, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        """Notice workers that are lost for good; the loss of the last ends the run."""
        ended: list[Any] = []
        if self._runs:
            ended, _ = ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0)
        for run in ended:
            index = self._runs.pop(run)
            try:
                ray.get(run)  # it has ended, so this does not wait
            except RayActorError as error:
                on_event({"kind": "note", "text": self._give_up(index, error), "time": time.time()})
            except RayTaskError:
                continue  # it has told the run itself
        # Again and again: a desk that is started anew has forgotten it.
        for index in self._lost:
            self._desk.forfeit.remote(index)
        if self._fatal is not None:
            # Again and again: a new incarnation of the run forgets what ended the last, and so does
            # a log that is started anew.
            self._log.set_fatal.remote(self._fatal)
            self._desk.fail.remote(self._fatal)

    def _give_up(self, index: int, error: RayActorError) -> str:
        """Go on without a worker, if any other is left."""
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        if self._runs:
            self._lost.append(index)
            return f"lost rollout worker {index}, {len(self._runs)} left: {reason}"
        self._fatal = f"lost rollout worker {index}, the last one: {reason}"
        return self._fatal
