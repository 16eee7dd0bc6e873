"""The report against figures worked out by hand, and the records it is made from."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tats_ray.config.load import dump_config, load_config
from tats_ray.config.points import points
from tats_ray.config.sweep_schema import load_sweep, settings
from tats_ray.core.errors import UsageError
from tats_ray.sweeps.sweep_board import SweepBoard
from tats_ray.sweeps.sweep_folder import (
    STATE_FILE,
    Record,
    read_record,
    refuse_other_settings,
    write_json,
    write_record,
)
from tats_ray.sweeps.sweep_report import tune_report
from tats_ray.sweeps.sweep_table import importance, read_table
from tats_ray.sweeps.trial_measures import train_error, val_error

BASE = "name: base\nloop: {epochs: 4, mae_only_epochs: 1}\ncheckpoint: {folder: elsewhere}\n"
TABLE = """
base: base.yaml
title: By hand
names: {m_o: loop.mae_only_epochs}
seeds: [0, 1]
table:
  - {m_o: 0, paper: 0.4, row: "(0)"}
  - {m_o: 1, paper: 0.3}
  - {m_o: 2, paper: 0.5}
  - {m_o: 3, paper: [0.1, 0.9]}
"""
ERRORS = {0: (0.6, 0.8), 1: (0.5, 0.5), 2: (0.9, 0.9), 3: (0.2, None)}
"""m_o -> training error of both seeds; None is a trial that failed."""


def experiment_of(folder: Path, text: str, results: dict[str, list[dict[str, Any]]]) -> Path:
    """A sweep's folder as `tats tune` leaves it: trial name -> its records, seed by seed."""
    (folder / "base.yaml").write_text(BASE)
    (folder / "file.yaml").write_text(text)
    sweep = load_sweep(folder / "file.yaml")
    experiment = folder / "file"
    found = points(sweep)
    (experiment / "trials").mkdir(parents=True)
    state = {
        "version": "0",
        "started": "today",
        "command": "tats tune file.yaml",
        "settings": settings(sweep),
        "at_once": 2,
        "points": [
            {"name": p.name, "row": p.row, "paper": p.paper, "note": p.note, "values": p.values}
            for p in found
        ],
    }
    write_json(experiment / STATE_FILE, state)
    for point in found:
        for seed, about in enumerate(results[point.name]):
            name = f"{point.name} seed={seed}" if len(sweep.config.seeds) > 1 else point.name
            run = experiment / "trials" / name.replace(" ", "_")
            run.mkdir()
            config = sweep.run_config(point.values)
            config = replace(config, name=run.name, seed=seed)
            (run / "config.yaml").write_text(dump_config(config))
            write_record(run, Record(name=name, values=point.values, seed=seed, **about))
    return experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    results: dict[str, list[dict[str, Any]]] = {}
    for m_o, errors in ERRORS.items():
        results[f"m_o={m_o}"] = [
            {"status": "failed", "reason": "loss is nan"}
            if error is None
            else {"status": "finished", "measures": {"train_error": error, "knn": 0.25}}
            for error in errors
        ]
    return experiment_of(tmp_path, TABLE, results)


def test_table_has_paper_ours_spread_and_both_best_rows(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune_report(experiment)
    text = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    # Standard deviation of 0.6 and 0.8 with one degree of freedom: 0.2 / sqrt(2).
    assert "0.400" in lines["(0)"]
    assert "0.700 +- 0.141" in lines["(0)"]
    assert "0.1000 and 0.9000 *" in lines["m_o=3 *"]
    assert "failed: loss is nan" in lines["m_o=3 *"]
    assert "25.0" in lines["m_o=1"]
    # Paper 0.4 0.3 0.5 against 0.7 0.5 0.9: the same order; the row printed twice has none.
    assert "train error with the paper: Spearman +1.00, Kendall +1.00, over 3 rows" in text
    assert "prints m_o=3 twice" in text


def test_report_files_are_complete_and_best_yaml_is_the_best_trial(
    experiment: Path, tmp_path: Path
) -> None:
    copied = tune_report(experiment, tmp_path / "results")
    best = load_config(experiment / "best.yaml")
    assert (best.name, best.checkpoint.folder) == ("file_best", "elsewhere")
    assert (best.loop.mae_only_epochs, best.seed) == (3, 0)
    with (experiment / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[0]["train_error"] == "0.6"
    assert rows[7]["reason"] == "loss is nan"
    assert (experiment / "bars.png").read_bytes().startswith(b"\x89PNG")
    text = copied.read_text()
    assert copied == tmp_path / "results" / "file.md"
    assert "(file_bars.png)" in text
    assert (tmp_path / "results" / "file_bars.png").is_file()
    assert "`tats tune file.yaml`" in text
    assert "- seeds: 0, 1" in text


def test_importance_and_heat_map_follow_the_field_that_decides(tmp_path: Path) -> None:
    text = """
base: base.yaml
search: grid
space:
  loop.mae_only_epochs: {grid: [0, 1, 2]}
  optim.base_lr: {grid: [0.1, 0.2]}
"""
    results = {
        f"mae_only_epochs={m} base_lr={lr}": [
            {"status": "finished", "measures": {"train_error": 0.1 * m + 0.001 * (lr == 0.1)}}
        ]
        for m in (0, 1, 2)
        for lr in (0.1, 0.2)
    }
    experiment = experiment_of(tmp_path, text, results)
    found = importance(read_table(experiment))
    assert list(found) == ["loop.mae_only_epochs", "optim.base_lr"]
    assert found["loop.mae_only_epochs"] > 0.99
    assert found["optim.base_lr"] == 0
    tune_report(experiment)
    assert (experiment / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert load_config(experiment / "best.yaml").optim.base_lr == 0.2


def test_a_folder_without_a_finished_trial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no sweep"):
        tune_report(tmp_path)
    results: dict[str, list[dict[str, Any]]] = {f"m_o={m}": [] for m in ERRORS}
    with pytest.raises(UsageError, match=r"no finished trial yet; continue with --resume"):
        tune_report(experiment_of(tmp_path, TABLE, results))


def test_a_changed_space_is_refused_with_the_difference(experiment: Path) -> None:
    folder = experiment.parent
    refuse_other_settings(experiment, settings(load_sweep(folder / "file.yaml")))
    free = ["--sweep.max_at_once", "1", "--checkpoint.every_epochs", "2", "--sweep.title", "B"]
    refuse_other_settings(experiment, settings(load_sweep(folder / "file.yaml", free)))
    (folder / "file.yaml").write_text(TABLE.replace("m_o: 2", "m_o: 4"))
    with pytest.raises(UsageError, match=r"sweep\.table .*'m_o': 2.* -> .*'m_o': 4.*resume with"):
        refuse_other_settings(experiment, settings(load_sweep(folder / "file.yaml")))
    (folder / "file.yaml").write_text(TABLE)
    flags = ["--loop.epochs", "5"]
    with pytest.raises(UsageError, match=r"loop\.epochs 4 -> 5"):
        refuse_other_settings(experiment, settings(load_sweep(folder / "file.yaml", flags)))


def test_a_trial_that_could_not_write_its_end_gets_one(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = experiment / "trials" / "m_o=0_seed=0"
    before = read_record(run)
    assert before is not None
    board = SweepBoard(experiment, num_left=2, metric="train_error")
    write_record(run, replace(before, status="running", epochs=2))
    board.ended("m_o=0 seed=0", None)
    stopped = read_record(run)
    assert stopped is not None
    assert (stopped.status, stopped.reason) == (
        "stopped",
        "fell behind in train_error after 2 epochs",
    )
    write_record(run, replace(before, status="running"))
    board.ended("m_o=0 seed=0", "its process died")
    failed = read_record(run)
    assert failed is not None
    assert (failed.status, failed.reason) == ("failed", "its process died")
    board.ended("never heard of", "no room")
    assert capsys.readouterr().out.count("FAILED") == 2


def test_training_error_is_the_mean_over_the_last_twentieth_of_the_steps(tmp_path: Path) -> None:
    """200 steps in 40 epochs, a record every 4: the last 10 steps are two records and a half."""
    lines = [
        {"step": step, "epoch": step // 5, "time": 0.0, "mae/loss": float(step)}
        for step in range(4, 201, 4)
    ]
    lines.append({"step": 200, "epoch": 40, "time": 0.0, "eval/error": 0.5})
    lines.insert(3, {"step": 16, "epoch": 3, "time": 0.0, "eval/error": 0.9})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert train_error(tmp_path) == pytest.approx((192 * 2 + 196 * 4 + 200 * 4) / 10)
    assert val_error(tmp_path) == 0.5


def test_a_record_survives_its_file_and_drops_what_is_not_finite(tmp_path: Path) -> None:
    record = Record("a", {"loop.epochs": 3}, 0, "finished", measures={"knn": 0.5, "x": math.nan})
    write_record(tmp_path, record)
    assert read_record(tmp_path) == replace(record, measures={"knn": 0.5})
    (tmp_path / "trial.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        read_record(tmp_path)
