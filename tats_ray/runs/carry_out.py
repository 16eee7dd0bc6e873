"""A planned run is carried out: shown, written down, trained, and named again where it stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tats_ray.config.finetune_schema import storage_retry_s
from tats_ray.runs.finetune_plan import FinetunePlan
from tats_ray.runs.pretrain_plan import Plan
from tats_ray.runtime.driver import launch
from tats_ray.view.board import BoardPlan, make_view
from tats_ray.view.records import BAD_VIDEOS_FILE
from tats_ray.view.tracking import RunFiles, read_bad_videos


def carry_out(
    plan: Plan | FinetunePlan, folder: Path, shown: BoardPlan, again: str
) -> launch.Outcome:
    """Print the plan, train, write what the run tells into its folder, and show it.

    Args:
        again: the command that goes on with the run, for one that is stopped before its end.

    Raises:
        UsageError, RunFailedError: as `launch.run`.
    """
    for what, how_much in [*plan.lines(), ("run folder", str(folder))]:
        print(f"{what:>14}  {how_much}", flush=True)
    config = plan.config
    view = make_view(config.log.mode, plan=shown)

    def on_note(text: str) -> None:
        view.on_event({"kind": "note", "text": text, "time": time.time()})

    files = RunFiles(folder, retry_s=storage_retry_s(config), on_note=on_note)

    def on_event(event: Mapping[str, Any]) -> None:
        files.on_event(event)
        view.on_event(event)

    with files, view:
        outcome = launch.run(
            config,
            folder,
            plan.placement,
            on_event=on_event,
            on_tick=view.on_tick,
            rollout_bytes=plan.rollout_bytes,
        )
    if bad := read_bad_videos(folder):
        where = folder / BAD_VIDEOS_FILE
        print(f"{'bad videos':>14}  {len(bad)} could not be read; see {where}", flush=True)
    if not outcome.is_finished:
        print(f"{outcome.message}; continue with:\n  {again}", flush=True)
    return outcome
