"""Sweeps that cannot be run are refused in one line before anything starts; code 2."""

from __future__ import annotations

import fcntl
import re
import sys
from pathlib import Path

import pytest

from tats_ray.__main__ import main
from tats_ray.cli import parse
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tats_ray.runtime.resources import placement
from tats_ray.sweeps import sweep_plan
from tats_ray.sweeps.sweep_folder import STATE_FILE
from tests.commands import refusal

BASE = """
data: {{train_list: {train}, val_list: {val}, num_frames: 4, image_size: 32, stride: 1,
       num_workers: 0}}
model: {{size: tiny, patch: 8, depth: 1, decoder_depth: 1}}
loop: {{epochs: 2, mae_only_epochs: 1}}
optim: {{batch_size: 2}}
checkpoint: {{folder: {folder}}}
"""
GRID = "{base: base.yaml, search: grid, space: {loop.epochs: {grid: [1, 2]}}}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=4, num_val=2, num_frames=8, size=32, workers=1)


@pytest.fixture
def sweep(videos: SyntheticSet, tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    text = BASE.format(train=videos.train_list, val=videos.val_list, folder=runs)
    (tmp_path / "base.yaml").write_text(text)
    (tmp_path / "sweep.yaml").write_text(GRID)
    return tmp_path / "sweep.yaml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GRID.replace("loop.epochs", "loop.epoch"), r"unknown field loop\.epoch; did you mean"),
        (GRID.replace("[1, 2]", "[one]"), r"loop\.epochs must be a whole number, got 'one'"),
        (GRID.replace("[1, 2]", "[]"), r"loop\.epochs: grid has no values; name at least one"),
        (GRID.replace("loop.epochs: {grid: [1, 2]}", ""), r"search grid has an empty space"),
        (
            GRID.replace("loop.epochs: {grid: [1, 2]", "cluster.num_workers: {grid: [1, 999]"),
            r"a trial needs 999 MAE learners .* cannot hold it: lower cluster\.num_workers",
        ),
        (GRID.replace("base: base.yaml", "base: none.yaml"), r"none\.yaml does not exist"),
        (
            GRID.replace("search: grid", "search: grid, scheduler: pbt"),
            r"scheduler pbt is not supported",
        ),
        (GRID.replace("loop.epochs", "sampler.mask_ratio"), r"mask_ratio must be inside \(0, 1\)"),
        (GRID.replace("[1, 2]", "[1, 1]"), r"epochs=1 appears twice"),
    ],
)
def test_a_wrong_sweep_is_refused(
    text: str, says: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.write_text(text)
    error = refusal(capsys, "tune", str(sweep))
    assert re.search(says, error), error
    assert not (sweep.parent / "runs").exists()


def test_a_measure_that_cannot_be_taken_is_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sweep.metric", "knn", "--data.val_list", ""]
    assert "needs a validation list; give --data.val_list" in refusal(
        capsys, "tune", str(sweep), *flags
    )


def test_a_sweep_of_elastic_runs_is_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--cluster.num_workers", "2", "--cluster.min_workers", "1"]
    says = "cluster.min_workers 1 does not work in a sweep"
    assert says in refusal(capsys, "tune", str(sweep), *flags)


def test_a_search_that_needs_optuna_says_how_to_get_it(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    sweep.write_text(GRID.replace("search: grid", "search: tpe, num_samples: 2"))
    error = refusal(capsys, "tune", str(sweep))
    assert "needs optuna, which is not installed; pip install 'tats-ray[search]'" in error


def test_storage_that_cannot_be_written_is_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep.parent / "runs").write_text("a file where the folder should be")
    error = refusal(capsys, "tune", str(sweep))
    assert re.search(
        r"runs/sweep/trials cannot be made \(.*\); use another --checkpoint\.folder", error
    ), error


def test_two_sweeps_in_one_folder_are_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = sweep.parent / "runs" / "sweep"
    experiment.mkdir(parents=True)
    with (experiment / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is in use by another process" in refusal(capsys, "tune", str(sweep))
    (experiment / STATE_FILE).write_text("{}")
    assert "already holds a sweep; continue it with --resume" in refusal(capsys, "tune", str(sweep))
    (experiment / STATE_FILE).unlink()
    assert "holds no sweep" in refusal(capsys, "tune", str(sweep), "--resume")
    (experiment / "config.yaml").write_text("")
    assert "already holds a run; choose another --name" in refusal(capsys, "tune", str(sweep))


def test_a_dry_run_prints_plan_and_time_and_writes_nothing(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sweep_plan, placement):
        monkeypatch.setattr(module, "usable_cores", lambda: 6)
    main(["tune", str(sweep), "--dry-run", "--sweep.seeds", "0 1", "--cluster.num_workers", "2"])
    text = capsys.readouterr().out
    assert "4 trials = 2 points x 2 seeds" in text
    assert "2 MAE learners with 1 CPU each" in text
    assert re.search(r"at once  3\n", text)
    assert re.search(
        r"time  about \d+\w*: 4 trials of \d+s, 3 at once; an MAE step takes 0\.\d+", text
    )
    assert (
        "NOTE  trials that end before the sampler takes part: epochs=1 seed=0, epochs=1 seed=1"
        in text
    )
    assert not (sweep.parent / "runs").exists()


def test_the_report_is_a_command_of_its_own() -> None:
    found, left = parse(["tune", "report", "runs/some", "--out", "docs/results"])
    assert (type(found).__name__, left) == ("TuneReport", [])
    found, left = parse(["tune", "some.yaml", "--loop.epochs", "3", "--resume"])
    assert (type(found).__name__, left) == ("Tune", ["--loop.epochs", "3"])
