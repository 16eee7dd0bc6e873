"""What a killed controller of Ray Train leaves is given back, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.state import get_actor

from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runtime.driver.reap import reap
from tats_ray.runtime.driver.tuner import Job, Report, Schedule, run_trials
from tests.marks import IN_CLUSTER
from tests.runtime.gate import Ambush, kill_process
from tests.runtime.holders import DEADLINE_S, Holder, TrainController, start
from tests.runtime.test_faults import Story

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


def group_state(group: str) -> str:
    found = placement_group_table(PlacementGroup(ray.PlacementGroupID.from_hex(group)))
    return str(found["state"])


def actor_state(actor: str) -> str:
    return str(get_actor(actor, address=ray.get_runtime_context().gcs_address).state)


@pytest.mark.long
def test_controller_killed_before_its_cleaner_knows_leaves_the_next_one_all_that_it_held(
    videos: SyntheticSet, run_folder: Path
) -> None:
    """A learner takes both CPUs: what the first controller reserved, the second one needs."""
    cluster = {"threads": 1, "timeout_s": 60, "cpus_per_worker": 2}
    story = Story(videos, run_folder, {}, cluster=cluster, loop={"epochs": 1})
    with Ambush() as ambush:
        outcome = story.run()
    assert outcome.is_finished
    assert story.starts == [0]
    assert ambush.learners == [], "the group was told before the controller stood still"
    assert group_state(ambush.group) == "REMOVED"
    assert actor_state(ambush.cleaner) == "DEAD"


def test_head_that_is_gone_leaves_the_error_to_those_who_know_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = SimpleNamespace(gcs_address="127.0.0.1:1", get_job_id=lambda: "01000000")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    reap()
    monkeypatch.setattr(context, "get_job_id", lambda: "no number")
    with pytest.raises(ValueError, match="non-hexadecimal"):
        reap()  # anything else is told


@pytest.mark.long
def test_learner_killed_as_it_is_told_to_begin_is_replaced_though_ray_train_gives_up(
    videos: SyntheticSet, run_folder: Path
) -> None:
    """Ray Train retries what fails before and after that call, which imports what learners need."""
    story = Story(videos, run_folder, {}, loop={"epochs": 1})
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for pid in story.gate.pids("RayTrainWorker"):
                if "run_train_fn" in Path(f"/proc/{pid}/cmdline").read_text():
                    kill_process(pid)
                    killed.append(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    outcome = story.run()
    thread.join()
    assert outcome.is_finished
    assert story.starts == [0]


@pytest.mark.long
def test_a_run_that_is_given_up_ends_its_controller_and_what_that_reserved(
    videos: SyntheticSet, run_folder: Path
) -> None:
    story = Story(videos, run_folder, {})
    before = set(placement_group_table())

    def give_up() -> None:
        if set(placement_group_table()) - before:
            raise KeyboardInterrupt

    story.on_tick = give_up
    with pytest.raises(KeyboardInterrupt):
        story.run()
    (group,) = set(placement_group_table()) - before
    assert group_state(group) == "REMOVED"
    assert not story.gate.pids("TrainController")
    assert not story.gate.pids("PlacementGroupCleaner")


OTHER_JOB = """
import sys, ray
from tests.runtime.holders import TrainController, start
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
holder, group, cleaner = start(TrainController)
ray.kill(holder)
print(group, cleaner, flush=True)
sys.stdin.read()
"""


def test_what_users_living_controllers_and_other_jobs_reserved_is_left_alone() -> None:
    own = placement_group([{"CPU": 0.01}])
    assert own.wait(DEADLINE_S)
    dead, living, user = (start(kind) for kind in (TrainController, TrainController, Holder))
    for holder in (dead[0], user[0]):
        ray.kill(holder)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_JOB, ray.get_runtime_context().gcs_address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    of_other_job = other.stdout.readline().split()
    reap()
    assert [group_state(dead[1]), actor_state(dead[2])] == ["REMOVED", "DEAD"]
    for group, cleaner in (living[1:], user[1:], of_other_job):
        assert [group_state(group), actor_state(cleaner)] == ["CREATED", "ALIVE"]
    assert group_state(own.id.hex()) == "CREATED"

    reap({living[0]._actor_id.binary()})
    assert [group_state(living[1]), actor_state(living[2])] == ["REMOVED", "DEAD"]
    assert actor_state(living[0]._actor_id.hex()) == "DEAD"
    other.communicate("", timeout=DEADLINE_S)
    remove_placement_group(own)
    remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(user[1])))


class Ends:
    def __init__(self) -> None:
        self.errors: dict[str, bool] = {}

    def started(self, name: str) -> None:
        pass

    def ended(self, name: str, error: str | None) -> None:
        self.errors[name] = error is not None


@pytest.mark.long
def test_trials_give_back_what_their_controllers_held_though_one_is_killed(tmp_path: Path) -> None:
    def trial(job: Job, report: Report) -> None:
        from tests.runtime.holders import TrainController, start

        _holder, group, cleaner = start(TrainController)
        Path(job["told"]).write_text(f"{group} {cleaner}")
        if job["name"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        report({"epoch": 1, "loss": 1.0, "trial": job["name"]})

    names = ("killed", "done")
    jobs = [{"name": name, "told": str(tmp_path / name)} for name in names]
    schedule = Schedule(at_once=1, metric="loss", is_best_lowest=True)
    ends = Ends()
    assert run_trials(trial, jobs, schedule, ends, folder=tmp_path / "tune")
    assert ends.errors == {"killed": True, "done": False}
    for name in names:
        group, cleaner = (tmp_path / name).read_text().split()
        assert [group_state(group), actor_state(cleaner)] == ["REMOVED", "DEAD"]
