"""Things go wrong in the middle of a run; it must end with the same numbers, or with the cause."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from tats_ray.checkpoints import format as checkpoints
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.view.tracking import RunFiles, read_metrics
from tests.marks import IN_CLUSTER
from tests.runtime.gate import ENV_ID, Gate
from tests.runtime.test_recipe import assert_same_checkpoint, small_config

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


class Story:
    """A run of 18 steps, what happens before some of its batches, and what is heard.

    The newest checkpoint before batch 8 is that of step 6, where the policy began to take part.
    """

    def __init__(
        self,
        videos: SyntheticSet,
        folder: Path,
        act: dict[int, Callable[[Story], None]],
        *,
        num_ranks: int = 1,
        **fields: Any,
    ) -> None:
        fields = {"env": {"id": ENV_ID}, "log": {"every_steps": 1}, **fields}
        self.config = small_config(videos, folder, **fields)
        self.folder = folder
        self.events: list[launch.Event] = []
        self.on_tick: Callable[[], None] = lambda: None
        self.gate = Gate(
            {step: partial(call, self) for step, call in act.items()}, num_ranks=num_ranks
        )

    def run(self) -> launch.Outcome:
        files = RunFiles(self.folder)

        def on_event(event: launch.Event) -> None:
            files.on_event(event)
            self.events.append(event)

        def on_tick() -> None:
            self.gate.on_tick()
            self.on_tick()

        try:
            placement = make_plan(self.config).placement
            return launch.run(
                self.config, self.folder, placement, on_event=on_event, on_tick=on_tick
            )
        finally:
            self.gate.close()
            files.close()

    @property
    def starts(self) -> list[int]:
        return [event["step"] for event in self.events if event["kind"] == "start"]

    @property
    def notes(self) -> list[str]:
        return [event["text"] for event in self.events if event["kind"] == "note"]


@pytest.fixture(scope="module")
def undisturbed(videos: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    folder.mkdir()
    story = Story(videos, folder, {})
    assert story.run().is_finished
    return folder


def assert_ended_like(undisturbed: Path, folder: Path) -> None:
    """Same position, weights and measurements to the bit, each row once, and nothing left over."""
    assert_same_checkpoint(folder, undisturbed)
    assert computed(folder) == computed(undisturbed)
    assert [row["step"] for row in computed(folder) if "mae/loss" in row] == list(range(1, 19))
    assert not list(folder.rglob(".*"))


def computed(folder: Path) -> list[dict[str, Any]]:
    """A run's metric rows, without what was timed or depends on when it was read."""
    timed = ("time", "data/", "wait/", "buffer/")
    return [
        {name: value for name, value in row.items() if not name.startswith(timed)}
        for row in read_metrics(folder)
    ]


CAUSES = {
    "PolicyLearnerActor": "the policy learner died",
    "RolloutBuffer": "the rollout buffer died",
    "WeightStore": "the weight store died",
    "RunLog": "the run log died",
    "RayTrainWorker": "the learner of rank 0 died",
    "TrainController": "the controller of Ray Train died",
}


@pytest.mark.long
@pytest.mark.parametrize(
    "victims",
    [
        ("WeightStore", "TrainController"),
        ("PolicyLearnerActor", "RunLog"),
        ("RolloutBuffer", "RayTrainWorker"),
    ],
    ids=" and ".join,
)
def test_killed_processes_cost_the_steps_since_the_last_checkpoint_and_nothing_else(
    victims: tuple[str, str], videos: SyntheticSet, run_folder: Path, undisturbed: Path
) -> None:

    def kill(victim: str, story: Story) -> None:
        story.gate.kill(victim)
        if victim == "TrainController":  # the learner ends with its owner, a moment later
            story.gate.wait_until_left(0)

    act = {step: partial(kill, victim) for step, victim in zip((8, 14), victims, strict=True)}
    story = Story(videos, run_folder, act)
    outcome = story.run()
    assert (outcome.is_finished, outcome.step) == (True, 18)
    assert story.starts == [0, 6, 12]
    told = [note for note in story.notes if note.startswith("lost ")]
    for number, (victim, line) in enumerate(zip(victims, told, strict=True), start=1):
        # Up to two steps more are done before a learner needs the one that died; a log that dies
        # takes the last news with it.
        assert re.fullmatch(
            rf"lost [0-4] steps?: restarted from step {6 * number}, \d+ s after {CAUSES[victim]}"
            rf".*; restart {number} of at most 3",
            line,
        ), line
    assert_ended_like(undisturbed, run_folder)


@pytest.mark.long
def test_full_disk_and_full_object_store_are_waited_out_and_sigterm_loses_nothing(
    videos: SyntheticSet, run_folder: Path, undisturbed: Path
) -> None:
    """The limit on the size of files breaks the write of a checkpoint in the middle, for real."""
    held: list[Any] = []

    def fill(story: Story) -> None:
        (pid,) = story.gate.pids("RayTrainWorker")
        limit(pid, 10_000)
        held.extend(ray.put(bytes(60 * 2**20)) for _ in range(5))  # of 200 MB: some must spill

    def free_once_it_was_refused() -> None:
        if any("could not be written" in note for note in story.notes):
            for pid in story.gate.pids("RayTrainWorker"):
                limit(pid, resource.RLIM_INFINITY)

    def terminate(story: Story) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cluster = {"threads": 1, "timeout_s": 240}  # so that it is tried for two minutes
    # At the last gate the driver has passed the wish to stop on, however late it was: before the
    # last step of an epoch, whose rows and checkpoint come first.
    act = {8: fill, 10: terminate, 11: lambda story: None}
    story = Story(videos, run_folder, act, cluster=cluster)
    story.on_tick = free_once_it_was_refused
    outcome = story.run()
    assert story.starts == [0]
    assert len(held) == 5
    refused, written = (note for note in story.notes if "the checkpoint of step 12" in note)
    assert re.search(r"could not be written: .*File too large.*; retrying for 120 s", refused)
    assert re.search(r"was written after \d+ s", written)

    assert not outcome.is_finished
    assert outcome.message == "stopped after step 12"
    at = checkpoints.load(run_folder).position
    assert (at.step, at.epoch, at.batch) == (outcome.step, 2, 0)

    newest = run_folder / "checkpoints" / f"step_{outcome.step:08d}" / "mae.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[-1] ^= 1
    newest.write_bytes(raw)  # the disk loses a bit meanwhile
    again = Story(videos, run_folder, {})
    assert again.run().is_finished
    assert again.starts == [6]
    assert f"{newest.parent} is damaged: {newest.name} is not what was written" in again.notes[0]
    assert_ended_like(undisturbed, run_folder)


def limit(pid: int, size: int) -> None:
    """The largest file that a process may write, until the next call."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.long
def test_a_storage_that_stays_away_ends_the_run_with_its_cause_and_the_last_checkpoint_intact(
    videos: SyntheticSet, run_folder: Path, tmp_path: Path
) -> None:
    """A file where the folder was: no one may write there, whatever his rights."""
    real, away = run_folder / "checkpoints", tmp_path / "away"

    def take_away(story: Story) -> None:
        real.rename(away)
        real.write_text("")

    story = Story(videos, run_folder, {8: take_away}, checkpoint={"retry_s": 1.0})
    with pytest.raises(
        launch.RunFailedError,
        match=r"rank 0: the checkpoint of step 12 could not be written for 1 s: .*File exists.*"
        r"continue with --resume",
    ):
        story.run()
    real.unlink()
    away.rename(real)
    assert checkpoints.load(run_folder).position.step == 6
    assert not list(real.glob(".*"))


@pytest.mark.long
def test_a_death_too_many_ends_the_run_with_its_cause(
    videos: SyntheticSet, run_folder: Path
) -> None:
    cluster = {"threads": 1, "timeout_s": 60, "max_failures": 0}
    kill = {8: lambda story: story.gate.kill("RolloutBuffer")}
    with pytest.raises(launch.RunFailedError, match="^the rollout buffer died"):
        Story(videos, run_folder, kill, cluster=cluster).run()
    assert checkpoints.load(run_folder).position.step == 6
