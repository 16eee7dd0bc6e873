"""The words of a run's report: its figures, what comes next, and where it was made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tats_ray import __version__
from tats_ray.config.load import parse_config
from tats_ray.runs.origin import about_run
from tats_ray.runs.pretrain_plan import Plan, make_plan
from tats_ray.runs.reports.run_report import _next_commands, _summary


def plan(tmp_path: Path, **branches: Any) -> Plan:
    (tmp_path / "a v.mp4").touch()
    listed = tmp_path / "train.csv"
    listed.write_text("a v.mp4\n" * 4)
    raw = {"name": "mine", "data": {"train_list": str(listed)}, "optim": {"batch_size": 2}}
    return make_plan(parse_config({**raw, **branches}))


def record(step: int, **metrics: float) -> dict[str, Any]:
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {"step": step, "epoch": 0, "time": 1e9 + step, **named}


@pytest.mark.parametrize(
    ("errors", "shown", "words"),
    [
        ([0.985], "0.985", "under one fixed random mask, measured once (predicting the mean gives"),
        ([1.0, 0.6], "1.00 -> 0.600", "under one fixed random mask; 40% less than at first"),
        ([0.8, 1.0], "0.800 -> 1.00", "under one fixed random mask; 25% more than at first"),
    ],
)
def test_error_is_shown_as_often_as_it_was_measured(
    errors: list[float], shown: str, words: str, tmp_path: Path
) -> None:
    metrics = [record(10 * at, eval__error=error) for at, error in enumerate(errors)]
    ((what, value, meaning),) = _summary(plan(tmp_path).config, metrics)
    assert (what, value) == ("Validation error", shown)
    assert meaning.startswith(words)


def test_training_error_ends_before_a_record_of_few_steps(tmp_path: Path) -> None:
    steps = [(10, 0.9), (20, 0.8), (30, 0.7), (32, 5.0)]
    metrics = [record(step, mae__loss=loss) for step, loss in steps]
    ((what, value, _),) = _summary(plan(tmp_path).config, metrics)
    assert (what, value) == ("Training error", "0.900 -> 0.700")


def test_plain_pixels_have_no_error_of_predicting_the_mean(tmp_path: Path) -> None:
    plain = plan(tmp_path, model={"normalize_targets": False})
    ((_, _, meaning),) = _summary(plain.config, [record(1, eval__error=0.02)])
    assert "predicting" not in meaning


@pytest.mark.parametrize(("sampler", "rival"), [("tats", "adamae"), ("tube", "tats")])
def test_next_commands_do_not_repeat_the_run_itself(
    sampler: str, rival: str, tmp_path: Path
) -> None:
    made = plan(tmp_path, sampler={"name": sampler})
    commands = _next_commands(made.config, Path("my runs/mine"), made.lists.train)
    assert commands[0].startswith("tats show-masks 'my runs/mine' '")
    (train,) = (command for command in commands if command.startswith("tats pretrain"))
    assert train.endswith(f"--name mine_{rival} --sampler.name {rival}")


def test_report_says_when_where_and_by_which_code() -> None:
    rows = dict(about_run([record(0), record(90)]))
    assert list(rows) == ["first record", "last record", "machine", "tats_ray", "versions"]
    assert re.match(r"2001-09-0\d \d\d:\d\d ", rows["first record"])
    assert rows["last record"].endswith(", 1m30s later")
    assert re.search(r"\d+ cores?", rows["machine"])
    assert re.match(r"\d+\.\d+\.\d+(, commit [0-9a-f]{40}.*)?$", rows["tats_ray"])
    assert re.match(r"Python 3\.\d+\.\d+, torch .*, ray \d", rows["versions"])
    assert list(dict(about_run([]))) == ["machine", "tats_ray", "versions"]
    later = [row for row, _ in about_run([record(0)], is_here=False)]
    assert later[2:] == ["report: machine", "report: tats_ray", "report: versions"]


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 30)])
def test_report_needs_no_git(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert dict(about_run([]))["tats_ray"] == __version__
