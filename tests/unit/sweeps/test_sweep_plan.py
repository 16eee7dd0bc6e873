"""A sweep's plan: what a trial is told, and the estimate against sums by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tats_ray.config.load import parse_config
from tats_ray.config.points import points, trials
from tats_ray.config.sweep_schema import Sweep, load_sweep
from tats_ray.runs.step_timing import StepTiming
from tats_ray.sweeps import sweep_plan
from tats_ray.sweeps.sweep_plan import trial_job
from tats_ray.sweeps.trial_measures import is_own

PACE = StepTiming(mae_step_s=1.0, joint_step_s=3.0, clips_s=2.0, feature_s=0.5)
BASE = "loop: {epochs: 10, mae_only_epochs: 4}\ncluster: {num_workers: 2}\n"
SWEEP = "base: base.yaml\nnames: {k: loop.mae_steps_per_update}\ntable: [{k: 1}, {k: 5}]\n"


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return load_sweep(tmp_path / "sweep.yaml", ["--sweep.seeds", "3 4"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # 4 epochs of 5 steps alone, 6 with the sampler; every batch is read in between.
        ({"num_workers": 0}, 20 * 1 + 30 * 3 + 50 * 2),
        # Kept in memory, videos are decoded in the first epoch only.
        ({"num_workers": 0, "cache_mb": 1}, 20 * 1 + 30 * 3 + 5 * 2),
        # Hidden behind training, unless reading is slower: two seconds against one.
        ({"num_workers": 1}, 20 * 2 + 30 * 3),
        ({"num_workers": 4}, 20 * 1 + 30 * 3),
        # The neighbours of 8 videos on top.
        ({"num_workers": 4, "val_list": "v"}, 20 * 1 + 30 * 3 + 8 * 0.5 / 4),
    ],
)
def test_time_of_a_trial_is_steps_and_what_reading_does_not_hide(
    data: dict[str, object], expected: float
) -> None:
    config = parse_config({"data": data, "loop": {"epochs": 10, "mae_only_epochs": 4}})
    assert PACE.trial_s(config, steps_per_epoch=5, num_videos=8) == pytest.approx(expected)


def test_a_run_that_is_mae_only_throughout_has_no_other_steps() -> None:
    config = parse_config({"data": {"num_workers": 9}, "loop": {"epochs": 3, "mae_only_epochs": 9}})
    assert PACE.trial_s(config, steps_per_epoch=5, num_videos=0) == 15


def test_a_trial_is_told_its_folder_seed_and_share_of_the_cores(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sweep_plan, "usable_cores", lambda: 16)
    trial = trials(points(sweep), sweep.config.seeds)[3]
    job = trial_job(sweep, trial, Path("runs") / "sweep", shared_by=3)
    config = parse_config(job["config"])
    assert (job["name"], config.name) == ("k=5 seed=4", "k=5_seed=4")
    assert config.checkpoint.folder == "runs/sweep/trials"
    assert (config.seed, config.loop.mae_steps_per_update) == (4, 5)
    assert config.cluster.threads == 16 // (2 * 3)
    # All else is the base's.
    base = sweep.run_config({"loop.mae_steps_per_update": 5})
    same = {"name": "", "seed": 0, "checkpoint": base.checkpoint, "cluster": base.cluster}
    assert replace(config, **same) == base


def test_on_a_cluster_a_learner_has_the_threads_that_it_reserves(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    sweep = replace(sweep, raw={**sweep.raw, "cluster": {"cpus_per_worker": 6}})
    trial = trials(points(sweep), (0,))[0]
    config = parse_config(trial_job(sweep, trial, Path("runs"), shared_by=3)["config"])
    assert config.cluster.threads == 6
    # Its process is not told otherwise where it is.
    assert config.cluster.address == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("sampler", "own"),
    [
        ({"mask_ratio": 0.9}, True),
        ({"mask_ratio": 0.9, "name": "random"}, True),
        ({"mask_ratio": 0.5}, False),
        # Whole tubes: 20 of 196 in each of 8 time slots are 160 tokens, not 156.
        ({"mask_ratio": 0.9, "name": "tube"}, False),
    ],
)
def test_a_run_that_shows_another_number_of_tokens_is_measured_again(
    sampler: dict[str, object], own: bool
) -> None:
    assert is_own(parse_config({"sampler": sampler}), 0.9) is own
