"""Videos that cannot be read are named: by each rank, once, and in the error that ends the run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tats_ray.core.errors import UsageError
from tats_ray.runtime.actors.run_log import RunLog
from tats_ray.runtime.workers import rank as module
from tats_ray.runtime.workers.rank import ClipCount, Rank
from tats_ray.training.stopwatch import Stopwatch
from tests.conftest import SmallBatch


def a_rank(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> Rank:
    def answered(method: Any, *args: Any, timeout_s: float) -> Any:
        return asyncio.run(method(*args))

    monkeypatch.setattr(module, "call_restarting", answered)
    rank = Rank.__new__(Rank)
    rank.rank, rank.world_size, rank.timeout_s = 0, 1, 1.0
    rank.run_folder, rank.peers = Path("runs/a"), SimpleNamespace(log=log)  # type: ignore[assignment]
    return rank


def batch(*bad: str) -> SmallBatch:
    reasons = dict.fromkeys(bad, "no video")
    return SmallBatch(torch.zeros(4, 3, 2, 4, 4, dtype=torch.uint8), len(bad), None, reasons)


def test_each_video_is_told_once_whichever_rank_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog()
    one, other = (ClipCount(a_rank(log, monkeypatch), 0.5) for _ in range(2))
    one.add(batch("a.mp4"))
    one.read(Stopwatch())
    other.add(batch("a.mp4", "b.mp4"))
    other.read(Stopwatch())
    one.add(batch("b.mp4"))
    one.read(Stopwatch())
    _, _, events = asyncio.run(log.drain("", 0, 0.0))
    assert [event["kind"] for event in events] == ["unreadable"] * 2
    assert [list(event["videos"]) for event in events] == [["a.mp4"], ["b.mp4"]]


def test_error_names_the_first_with_reasons_and_the_file_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = ClipCount(a_rank(RunLog(), monkeypatch), 0.01)
    count.add(batch(*(f"{name}.mp4" for name in "abcde")))
    count.read(Stopwatch())
    with pytest.raises(UsageError) as failed:
        count.check(7)
    assert str(failed.value) == (
        "5 of 4 clips until step 7 could not be read, more than data.max_bad_share 0.01: "
        "a.mp4 (no video), b.mp4 (no video), c.mp4 (no video) and 2 more; repair the list or "
        "raise the share; runs/a/bad_videos.csv names all of them"
    )
