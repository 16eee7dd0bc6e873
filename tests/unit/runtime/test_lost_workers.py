"""What the driver does about lost rollout workers, told by a Ray that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from tats_ray.runtime.driver import rollout_workers
from tats_ray.runtime.driver.rollout_workers import RolloutWorkers


class Told:
    """An actor handle that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *args: self.calls.append((name, *args)))


def test_lost_workers_are_done_without_until_the_last_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: dict[str, Exception] = {}

    def get(reference: Any) -> None:
        if reference in errors:
            raise errors[reference]

    def wait(runs: list[str], **_: Any) -> tuple[list[str], list[str]]:
        return [run for run in runs if run in errors], [run for run in runs if run not in errors]

    monkeypatch.setattr(rollout_workers, "ray", SimpleNamespace(get=get, wait=wait))
    desk, log, notes = Told(), Told(), []
    workers = RolloutWorkers.__new__(RolloutWorkers)
    workers._desk, workers._log, workers._fatal = desk, log, None
    workers._lost = []
    workers._runs = {"run 0": 0, "run 1": 1, "run 2": 2}

    def watch() -> None:
        workers.watch(lambda event: notes.append(event["text"]))

    watch()
    assert notes == desk.calls == []
    errors["run 1"] = ActorDiedError()
    watch()
    assert [note.split(":")[0] for note in notes] == ["lost rollout worker 1, 2 left"]
    assert desk.calls == [("forfeit", 1)]
    errors["run 0"] = RayTaskError("run", "", ValueError("it has told the run itself"))
    watch()
    assert (len(notes), log.calls) == (1, [])
    errors["run 2"] = ActorDiedError()
    watch()
    fatal = notes[1]
    assert fatal.startswith("lost rollout worker 2, the last one: ")
    watch()  # a new incarnation is told, too, and a log or a desk that was started anew
    assert log.calls == [("set_fatal", fatal)] * 2
    assert desk.calls[2:] == [("forfeit", 1), ("fail", fatal)] * 2
