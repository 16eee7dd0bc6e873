"""A run over two nodes goes on when one of them is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.view.tracking import read_metrics
from tests.runtime.test_recipe import assert_close_to_recipe, recipe, small_config

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]


def two_nodes(folder: Path, videos: SyntheticSet, *words: str) -> Any:
    paths = [str(folder), str(videos.train_list), str(videos.val_list)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.two_nodes", *paths, *words],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def test_run_that_loses_one_of_two_nodes_finishes_on_the_other(
    videos: SyntheticSet, run_folder: Path
) -> None:
    told = two_nodes(run_folder, videos)
    assert 2 in told["placed"]  # the learners were on two nodes
    assert (told["finished"], told["step"]) == (True, 9)
    starts = [event["step"] for event in told["events"] if event["kind"] == "start"]
    assert starts == [0, 3]
    notes = [event["text"] for event in told["events"] if event["kind"] == "note"]
    (lost,) = [note for note in notes if note.startswith("lost ")]
    assert "restarted from step 3" in lost
    # Which is noticed first, the death or the silence of its connections, is up to the network.
    assert "died" in lost or "lost its connection to another learner" in lost
    assert "does not see the run folder of the driver" in told["not_shared"]
    rows = [record["step"] for record in read_metrics(run_folder) if "mae/loss" in record]
    assert rows == list(range(1, 10))
    mae, policy = recipe(small_config(videos, run_folder, cluster={"num_workers": 2}))
    found = checkpoints.load(run_folder)
    assert found.policy is not None
    for part, expected in ((found.mae, mae), (found.policy, policy)):
        for name, tensor in expected.items():
            assert torch.equal(part["network"][name], tensor), name


def test_elastic_run_goes_on_with_one_learner_and_with_two_again(
    videos: SyntheticSet, run_folder: Path
) -> None:
    told = two_nodes(run_folder, videos, "elastic")
    assert 2 in told["placed"]
    assert (told["finished"], told["step"]) == (True, 9)
    starts = [event for event in told["events"] if event["kind"] == "start"]
    assert [(start["step"], start["num_learners"]) for start in starts] == [(0, 2), (3, 1), (6, 2)]
    lost, shared, grown = [e["text"] for e in told["events"] if e["kind"] == "note"]
    assert "restarted from step 3" in lost
    assert "restart 1 of at most 3" in lost
    assert shared.startswith("1 of 2 learners share the 2 batches of each step")
    assert grown == (
        "lost 1 step: restarted from step 6 with 2 learners instead of 1: the cluster changed"
    )
    rows = [record["step"] for record in read_metrics(run_folder) if "mae/loss" in record]
    assert rows == list(range(1, 10))
    assert_close_to_recipe(run_folder, small_config(videos, run_folder, cluster={"num_workers": 2}))
