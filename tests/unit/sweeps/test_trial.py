"""A trial of a sweep, as far as it goes without a cluster."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tats_ray.config.load import parse_config
from tats_ray.core.errors import TatsError
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.sweeps import trial
from tats_ray.sweeps.trial import run_trial


def test_trial_is_checked_against_the_object_store_as_a_run_of_its_own_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v.mp4").touch()
    (tmp_path / "train.csv").write_text("v.mp4\t0\n" * 20)
    config = parse_config(
        {
            "name": "trial",
            "data": {"train_list": str(tmp_path / "train.csv")},
            "model": {"size": "tiny"},
            "optim": {"batch_size": 8},
            "checkpoint": {"folder": str(tmp_path / "trials")},
        }
    )
    asked: dict[str, Any] = {}

    def run(*args: Any, **how: Any) -> launch.Outcome:
        asked.update(how, placement=args[2])
        return launch.Outcome(is_finished=False, message="asked to stop", step=0)

    monkeypatch.setattr(trial.launch, "run", run)
    job = {"name": "trial", "values": {}, "seed": 0, "config": asdict(config)}
    with pytest.raises(TatsError, match="asked to stop, before its last epoch"):
        run_trial(job, lambda measures: None)
    plan = make_plan(config)
    assert (asked["placement"], asked["rollout_bytes"]) == (plan.placement, plan.rollout_bytes)
    assert plan.rollout_bytes > 0
