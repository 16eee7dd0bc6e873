"""Verdicts on run folders whose figures are made up, so that the right answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.errors import UsageError
from tats_ray.evaluation.compare import compare


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    algorithm: str = "ppo",
    last: float = 0.5,
    steps: int = 100,
    **branches: dict[str, Any],
) -> Path:
    """A run whose validation error falls from 1 to `last` in a straight line of ten records."""
    folder.mkdir(parents=True)
    raw = {"name": folder.name, "seed": seed, "algorithm": {"name": algorithm}, **branches}
    (folder / "config.yaml").write_text(dump_config(parse_config(raw)))
    records = [
        {
            "step": step,
            "epoch": 0,
            "time": 1e9 + step,
            "mae/loss": 1.0,
            "eval/error": 1 + (last - 1) * step / 100,
        }
        for step in range(10, steps + 1, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def make_group(folder: Path, algorithm: str, lasts: list[float], **other: Any) -> list[Path]:
    return [
        make_run(folder / f"{algorithm}_{seed}", seed=seed, algorithm=algorithm, last=last, **other)
        for seed, last in enumerate(lasts)
    ]


def printed(capsys: pytest.CaptureFixture[str], *folders: Path, metric: str = "eval/error") -> str:
    compare(folders, metric)
    return capsys.readouterr().out


def test_groups_that_differ_are_told_apart_and_the_lower_error_is_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_group(tmp_path, "ppo", [0.50, 0.52, 0.49, 0.51, 0.50])
    runs += make_group(tmp_path, "reinforce", [0.60, 0.62, 0.59, 0.61, 0.60])
    text = printed(capsys, *runs)
    # By hand: of five values the middle three count.
    assert "0.503 [" in text
    assert "0.603 [" in text
    assert "A and B: A is better: lower eval/error (difference -0.1 [" in text
    assert "algorithm.name: A ppo, B reinforce" in text
    assert "algorithm.entropy_coef: A 0.0001, B 0.0" in text
    assert "clip_eps" not in text  # of one of them alone
    assert "seed:" not in text
    assert "ppo_0 ... ppo_4" in text
    assert text == printed(capsys, *runs)


def test_equal_groups_show_no_clear_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(0).normal(0.5, 0.02, 12)
    runs = make_group(tmp_path, "ppo", values[:6].tolist())
    runs += make_group(tmp_path, "reinforce", values[6:].tolist())
    assert "A and B: no clear difference (" in printed(capsys, *runs)


def test_three_seeds_that_lie_apart_are_too_few_for_a_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_group(tmp_path, "ppo", [0.1, 0.11, 0.12])
    runs += make_group(tmp_path, "reinforce", [0.9, 0.91, 0.92])
    assert "A and B: too few seeds for a claim" in printed(capsys, *runs)


def test_one_seed_each_makes_no_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = make_group(tmp_path, "ppo", [0.1]) + make_group(tmp_path, "reinforce", [0.9])
    text = printed(capsys, *runs)
    assert "A and B: one seed each: no claim" in text
    assert "[" not in text.split("\n", 1)[1]


def test_one_configuration_is_summed_up_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, *make_group(tmp_path, "ppo", [0.4, 0.5]))
    assert "0.45 [0.4, 0.5]" in text
    assert "Only one configuration" in text


def test_runs_of_other_lengths_are_judged_at_the_last_step_that_all_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_group(tmp_path, "ppo", [0.5, 0.5, 0.5, 0.5], loop={"epochs": 7})
    runs += make_group(tmp_path, "reinforce", [0.5, 0.5, 0.5, 0.5], steps=40)
    text = printed(capsys, *runs)
    assert "at step 40" in text
    lines = text.splitlines()
    # The longer ones ended at 0.5; at step 40 all were at 1 - 0.5 * 0.4.
    assert lines[2].split()[-6:] == ["0.5", "[0.5,", "0.5]", "0.8", "[0.8,", "0.8]"]
    assert "1m30s" in lines[2]
    assert "loop.epochs: A 7, B 200" in text
    assert "no clear difference (difference +0 [" in text


def test_settings_that_change_no_result_do_not_split_a_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_run(tmp_path / "one", seed=0, log={"every_steps": 3})
    other = make_run(tmp_path / "other", seed=1, cluster={"threads": 2})
    assert "Only one configuration" in printed(capsys, one, other)


def test_metric_without_a_better_side_is_only_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_group(tmp_path, "ppo", [0.1, 0.2, 0.1, 0.2])
    runs += make_group(tmp_path, "reinforce", [0.7, 0.8, 0.7, 0.8])
    for run in runs:
        file = run / "metrics.jsonl"
        file.write_text(file.read_text().replace("eval/error", "eval/entropy"))
    assert "B has more eval/entropy" in printed(capsys, *runs, metric="eval/entropy")


def test_tube_masks_among_others_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_run(tmp_path / "one")
    other = make_run(tmp_path / "other", sampler={"name": "tube"})
    assert "note: tube and frame masks" in printed(capsys, one, other)
    assert "note:" not in printed(capsys, one)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"{tmp_path} is not a run: it lacks config.yaml"):
        compare([run, tmp_path])
    with pytest.raises(UsageError, match="compare needs run folders"):
        compare([])


def test_metric_that_is_not_there_is_refused_with_the_nearest_and_the_known(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"'eval/eror'; did you mean eval/error\?.*mae/loss"):
        compare([run], "eval/eror")


@pytest.mark.parametrize(
    "branches",
    [
        {"data": {"val_list": "other.csv"}},
        {"eval": {"num_clips": 3}},
        {"sampler": {"mask_ratio": 0.95}},
    ],
    ids=lambda branches: next(iter(branches)),
)
def test_errors_on_other_validation_clips_or_masks_are_not_compared(
    branches: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", seed=1, **branches)
    (branch, field), *_ = ((b, next(iter(f))) for b, f in branches.items())
    with pytest.raises(UsageError, match=rf"different validation clips or masks: {branch}.{field}"):
        compare([one, other])
    assert "mae/loss" in printed(capsys, one, other, metric="mae/loss")


def test_same_seed_twice_is_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "one", seed=3), make_run(tmp_path / "other", seed=3)
    with pytest.raises(UsageError, match=r"the same settings and the same seed 3; leave one out"):
        compare([one, other])


def list_videos(folder: Path, names: list[str]) -> None:
    listed = {"root": str(folder), "entries": [[name, 0] for name in names]}
    (folder / "videos.json").write_text(json.dumps({"train_list": listed, "val_list": listed}))


def test_runs_of_two_places_are_measured_on_the_same_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there, before = (
        make_run(
            tmp_path / name,
            seed=seed,
            init=f"{place}runs/first",
            data={"train_list": f"{place}data/train.csv", "val_list": f"{place}data/val.csv"},
        )
        for seed, (name, place) in enumerate({"a": "/here/", "b": "/there/", "c": ""}.items())
    )
    with pytest.raises(UsageError, match=r"data.val_list is '/here/.*' and '/there/.*'"):
        compare([here, there])
    assert "data.train_list: A /here/" in printed(capsys, here, there, metric="mae/loss")
    assert "Only one configuration" in printed(capsys, here, before)
    for run in (here, there):
        list_videos(run, ["1.mp4", "2.mp4"])
    said = printed(capsys, here, there, before)
    assert "data." not in said
    assert "init: A /here/runs/first, B /there/runs/first" in said
    list_videos(there, ["1.mp4", "3.mp4"])
    with pytest.raises(UsageError, match=r"data.val_list is '/here/.*' and '/there/.*'"):
        compare([before, here, there])  # the one that may be either does not make them the same
    settings = (here / "config.yaml").read_text().replace("seed: 0", "seed: 1")
    (there / "config.yaml").write_text(settings)  # a list that was changed in its place
    with pytest.raises(UsageError, match=r"data.val_list is '/here/(.*)' and '/here/\1 \(\w+\)'"):
        compare([here, there])
