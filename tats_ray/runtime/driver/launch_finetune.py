"""How a fine-tuning run is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.driver import home
from tats_ray.runtime.driver.fit import Outcome
from tats_ray.runtime.driver.launch import Job, run_job
from tats_ray.runtime.driver.side_actors import start_log
from tats_ray.runtime.driver.watch import Event
from tats_ray.runtime.resources.placement import Placement
from tats_ray.runtime.workers.finetune_worker import finetune_loop


def run_finetune(
    config: FinetuneConfig,
    folder: Path,
    placement: Placement,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Fine-tune until the last epoch, a failure, or a request to stop.

    Args:
        config: resolved; the folder holds the first weights, or a checkpoint to go on from.

    Raises:
        UsageError, RunFailedError: as `launch.run`.
    """

    def start(run_id: str) -> Job:
        peers = Peers(buffer=None, store=None, policy_learner=None, log=start_log(config))
        settings = {
            "config": asdict(config),
            "run": str(folder.resolve()),
            "home": home.here(),
            "id": run_id,
            "threads": placement.threads,
        }
        return Job(finetune_loop, settings, peers)

    return run_job(config, folder, placement.request, start, on_event=on_event, on_tick=on_tick)
