"""A run's events on their way to its files and to the people who watch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tats_ray.config.finetune_schema import Clustered, storage_retry_s
from tats_ray.view.board import BoardPlan, make_view
from tats_ray.view.tracking import RunFiles


@contextmanager
def watched(
    config: Clustered, folder: Path, plan: BoardPlan
) -> Iterator[tuple[Callable[[Mapping[str, Any]], None], Callable[[], None]]]:
    """Write what a run tells into its folder, and show it.

    Yields:
        What takes an event, and what is to be called now and then.
    """
    view = make_view(config.log.mode, plan=plan)

    def on_note(text: str) -> None:
        view.on_event({"kind": "note", "text": text, "time": time.time()})

    files = RunFiles(folder, retry_s=storage_retry_s(config), on_note=on_note)

    def on_event(event: Mapping[str, Any]) -> None:
        files.on_event(event)
        view.on_event(event)

    with files, view:
        yield on_event, view.on_tick
