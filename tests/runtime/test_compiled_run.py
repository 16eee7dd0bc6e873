"""Real runs whose learners are compiled: near the eager run, and resumed to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.schema import RunConfig
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.training.compilation import cache_folder
from tests.marks import IN_CLUSTER
from tests.runtime.test_recipe import small_config, train

# The compiler takes a minute for each network on idle cores, and less from its cache.
pytestmark = [*IN_CLUSTER, pytest.mark.timeout(900), pytest.mark.long]
STEPS = 6
"""Of an epoch."""


def config_of(videos: SyntheticSet, run: Path, mode: str) -> RunConfig:
    run.mkdir(exist_ok=True)
    return small_config(
        videos,
        run,
        loop={"epochs": 2, "mae_only_epochs": 0, "mae_steps_per_update": 1, "compile": mode},
        algorithm={"update_steps": 1},
        cluster={"policy_place": "learner", "timeout_s": 600},
        log={"every_steps": 1},
    )


def losses(events: list[dict[str, Any]]) -> list[float]:
    told = [event["metrics"] for event in events if event["kind"] == "metrics"]
    return [metrics["mae/loss"] for metrics in told if "mae/loss" in metrics]


@pytest.mark.parametrize("mode", ["blocks", "step"])
def test_compiled_run_is_near_the_eager_one_and_goes_on_to_the_last_bit_where_it_was_stopped(
    mode: str, videos: SyntheticSet, tmp_path: Path
) -> None:
    config = config_of(videos, tmp_path / "eager", "off")
    outcome, eager = train(config, tmp_path / "eager")
    assert outcome.is_finished

    straight = config_of(videos, tmp_path / "straight", mode)
    (said,) = [str(text) for name, text in make_plan(straight).lines() if name == "compiled"]
    assert "in the first step of each stage: a minute or more on idle cores" in said
    assert f"less where {cache_folder()} has the code already" in said
    outcome, events = train(straight, tmp_path / "straight")
    assert outcome.is_finished
    notes = [event["text"] for event in events if event["kind"] == "note"]
    assert {note.split(" in ")[0] for note in notes} == {
        f"compiled the autoencoder ({mode})",
        f"compiled the policy ({mode})",
    }
    assert Path(cache_folder()).is_dir()
    assert len(losses(events)) == 2 * STEPS
    assert losses(events) == pytest.approx(losses(eager), rel=1e-4)

    # As if it had been killed after the checkpoint of the first epoch.
    resumed = config_of(videos, tmp_path / "resumed", mode)
    name = f"checkpoints/step_{STEPS:08}"
    shutil.copytree(tmp_path / "straight" / name, tmp_path / "resumed" / name)
    outcome, events = train(resumed, tmp_path / "resumed")
    assert outcome.is_finished
    assert len(losses(events)) == STEPS
    ends = [checkpoints.load(tmp_path / run) for run in ("straight", "resumed")]
    for part in ("mae", "policy"):
        first, second = (getattr(end, part)["network"] for end in ends)
        assert all(torch.equal(second[weight], value) for weight, value in first.items())
