"""Processes of a run are killed; the run must end with the same numbers all the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.state import list_actors

from tats_ray.data.synthetic import SyntheticSet
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.recipes.plan import make_plan
from tats_ray.runtime import launch
from tests.runtime.test_recipe import small_config

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def kill(class_name: str) -> None:
    """SIGKILL to the living actor of a class."""
    actors = list_actors(address=ray.get_runtime_context().gcs_address)
    alive = [a for a in actors if a.class_name == class_name and a.state == "ALIVE"]
    assert len(alive) == 1, (class_name, actors)
    os.kill(alive[0].pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(videos: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    folder.mkdir()
    config = small_config(videos, folder)
    launch.run(config, folder, make_plan(config).placement, on_event=lambda event: None)
    return checkpoints.load(folder)


@pytest.mark.parametrize(
    "victim", ["PolicyLearnerActor", "RolloutBuffer", "WeightStore", "RayTrainWorker"]
)
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint_and_nothing_else(
    victim: str, videos: SyntheticSet, run_folder: Path, undisturbed: Any
) -> None:
    config = small_config(videos, run_folder)
    events: list[launch.Event] = []
    killed_at: list[int] = []

    def watch(event: launch.Event) -> None:
        events.append(event)
        # The policy takes part from step 6 on, where the first checkpoint is.
        if not killed_at and event["kind"] == "metrics" and event["step"] >= 8:
            killed_at.append(event["step"])
            kill(victim)

    outcome = launch.run(config, run_folder, make_plan(config).placement, on_event=watch)
    assert killed_at
    assert outcome.is_finished
    starts = [event["step"] for event in events if event["kind"] == "start"]
    assert starts[0] == 0
    assert starts[1:] in ([6], [12])  # of the newest checkpoint when it died
    found = checkpoints.load(run_folder)
    assert found.position == undisturbed.position
    for part, other in ((found.mae, undisturbed.mae), (found.policy, undisturbed.policy)):
        for name, expected in other["network"].items():
            assert torch.equal(part["network"][name], expected), name
