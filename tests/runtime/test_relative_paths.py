"""Relative paths, where the driver stands in another folder than its nodes were started in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import parse_config, parse_yaml
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runtime.driver.tuner import elsewhere
from tests.marks import IN_CLUSTER
from tests.runtime.test_recipe import small_config, train

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


@pytest.mark.long
def test_learners_and_rollout_workers_find_lists_from_the_drivers_folder(
    videos: SyntheticSet, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = videos.train_list.parent
    monkeypatch.chdir(data.parent)
    config = small_config(
        videos,
        run_folder,
        data={"train_list": f"{data.name}/train.csv", "val_list": f"{data.name}/val.csv"},
        loop={"source": "workers", "epochs": 2},
        cluster={"cpus_per_worker": 0.5},
    )
    outcome, _ = train(config, run_folder)
    assert outcome.is_finished
    # As it was given: with lists of another name, the run could not be continued.
    text = checkpoints.load(run_folder).config_yaml
    assert parse_config(parse_yaml(text, source="checkpoint")) == config


def test_function_that_is_called_elsewhere_finds_paths_from_the_drivers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = elsewhere(lambda: str(Path.cwd()), num_cpus=1, num_gpus=0, timeout_s=60)
    assert found == str(tmp_path)
