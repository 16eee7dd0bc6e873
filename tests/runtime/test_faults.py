"""Processes of a run are killed; the run must end with the same numbers all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.data.synthetic import SyntheticSet
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.recipes.plan import make_plan
from tats_ray.runtime import launch
from tests.runtime.gate import ENV_ID, Gate
from tests.runtime.test_recipe import small_config

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


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
    config = small_config(videos, run_folder, env={"id": ENV_ID})
    events: list[launch.Event] = []
    # Steps 7 and 8 are done, their policy update too; the newest checkpoint is that of step 6.
    gate = Gate({8: lambda: gate.kill(victim)})
    try:
        outcome = launch.run(
            config,
            run_folder,
            make_plan(config).placement,
            on_event=events.append,
            on_tick=gate.on_tick,
        )
    finally:
        gate.close()
    assert gate.passed == [8]
    assert outcome.is_finished
    assert outcome.step == 18
    starts = [event["step"] for event in events if event["kind"] == "start"]
    assert starts == [0, 6]
    found = checkpoints.load(run_folder)
    assert found.position == undisturbed.position
    for part, other in ((found.mae, undisturbed.mae), (found.policy, undisturbed.policy)):
        for name, expected in other["network"].items():
            assert torch.equal(part["network"][name], expected), name
