"""More trials than the machine fits, with early stopping: no deadlock, and nothing left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray
from ray.util.state import list_actors

from tats_ray.config.load import dump_config
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.sweeps.run_sweep import tune
from tats_ray.sweeps.sweep_folder import read_records
from tests.marks import IN_CLUSTER
from tests.runtime.chaos import RAYS_OWN
from tests.runtime.test_recipe import small_config

pytestmark = [
    *IN_CLUSTER,
    pytest.mark.long,
    pytest.mark.timeout(280),
    # Ray forgets a file now and then.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SWEEP = """
base: base.yaml
names: {lr: optim.base_lr}
scheduler: asha
grace_epochs: 1
reduction: 2
table:
  - {lr: 0.1}
  - {lr: 1e30}
  - {lr: 1e-9}
  - {lr: 1e-10}
"""


def alive() -> list[str]:
    """Actors and placement groups, but for Ray's own records."""
    actors = list_actors(address=ray.get_runtime_context().gcs_address, limit=1000)
    groups = ray.util.placement_group_table().values()
    return [
        *(a.class_name for a in actors if a.state == "ALIVE" and a.class_name not in RAYS_OWN),
        *(str(group["state"]) for group in groups if group["state"] != "REMOVED"),
    ]


def test_early_stopping_over_more_trials_than_fit_ends_and_leaks_nothing(
    videos: SyntheticSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four trials of half a CPU and a light driver on two CPUs: three fit. One of them diverges."""
    config = small_config(
        videos,
        tmp_path / "run",
        loop={"epochs": 6, "mae_only_epochs": 1},
        cluster={"cpus_per_worker": 0.5},
        checkpoint={"every_epochs": 6},
        eval={"every_epochs": 6},
        log={"every_steps": 1},
    )
    (tmp_path / "base.yaml").write_text(dump_config(config))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    before = ray.available_resources()
    experiment = tune(tmp_path / "sweep.yaml")
    text = capsys.readouterr().out
    assert "at once  3" in text
    found = {record.name: record for record in read_records(experiment)}
    assert len(found) == 4
    assert found["lr=0.1"].status == "finished"
    assert set(found["lr=0.1"].measures) == {"train_error", "val_error", "knn"}
    assert found["lr=1e30"].status == "failed"
    assert "the MAE loss is nan" in found["lr=1e30"].reason
    slow = [found["lr=1e-9"], found["lr=1e-10"]]
    # The last one meets rungs that others have passed, whatever the order of events.
    assert "stopped" in {record.status for record in slow}
    assert all(r.epochs < 6 for r in slow if r.status == "stopped")
    deadline = time.monotonic() + 60
    while alive() or ray.available_resources()["CPU"] < before["CPU"] - 1e-6:
        assert time.monotonic() < deadline, (alive(), ray.available_resources())
        time.sleep(0.5)
    for name in ("lr=0.1", "lr=1e-9"):
        run = experiment / "trials" / name
        assert (run / "metrics.jsonl").is_file()
        assert list((run / "tensorboard").iterdir())
