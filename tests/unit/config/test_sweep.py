"""Sweep files: what is refused, what the points are, and that the paper's tables are complete."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tats_ray.config.domains import Domain, parse_domain
from tats_ray.config.points import points, trials
from tats_ray.config.sweep_schema import Sweep, load_sweep, settings
from tats_ray.core.errors import UsageError
from tats_ray.models.zoo import token_grid
from tats_ray.runtime.resources.rollout_bytes import buffer_bytes

REPO = Path(__file__).parents[3]
CONFIGS = REPO / "tune_configs"

TABLE2 = {
    (0, 1): (0.5211, 0.8051),
    (1, 1): (0.5205, 0.8195),
    (5, 1): (0.5304, 0.8535),
    (10, 1): (0.5135, 0.8278),
    (25, 1): (0.5269, 0.8987),
    (100, 1): (0.6662, 0.9291),
    (50, 5): (0.7735, 0.9772),
    (50, 10): (0.8149, 0.9776),
    (50, 25): (0.9201, None),
}
"""The supplement's table, typed from it once more: UCF101, HMDB51."""
TABLE3 = {
    (1e-4, 1e-3, 1e-3): (0.5188,),
    (1e-4, 1e-3, 1e-4): (0.5167,),
    (1e-4, 1e-4, 1e-3): (0.5246,),
    (1e-3, 1e-4, 1e-4): (0.8482,),
    (1e-4, 1e-4, 1e-4): (0.5135,),
    (1e-5, 1e-4, 1e-4): (0.5239,),
    (1e-3, 1e-3, 1e-4): (0.5215, 0.7869),
    (1e-5, 1e-5, 1e-5): (0.5173,),
    (1e-3, 1e-3, 1e-3): (),
    (1e-3, 1e-4, 1e-3): (),
}


def write(folder: Path, **fields: Any) -> Path:
    (folder / "base.yaml").write_text("loop: {epochs: 4, mae_only_epochs: 1}\n")
    path = folder / "some.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", **fields}, sort_keys=False))
    return path


def search(folder: Path, space: dict[str, Any], **fields: Any) -> Sweep:
    return load_sweep(write(folder, **{"search": "grid", **fields}, space=space))


@pytest.mark.parametrize(("data_set", "column"), [("ucf101", 0), ("hmdb51", 1)])
def test_table_2_has_the_rows_and_values_of_the_supplement(data_set: str, column: int) -> None:
    sweep = load_sweep(CONFIGS / f"sweep_table2_{data_set}.yaml")
    found = {
        (loop.mae_only_epochs, loop.mae_steps_per_update): point.paper
        for point in points(sweep)
        for loop in [sweep.run_config(point.values).loop]
    }
    printed = {key: (row[column],) for key, row in TABLE2.items() if row[column] is not None}
    assert list(found.items()) == list(printed.items())
    assert sweep.config.metric == "train_error"


def test_table_3_runs_the_key_that_is_printed_twice_once_and_what_it_may_have_meant() -> None:
    sweep = load_sweep(CONFIGS / "sweep_table3_ucf101.yaml")
    found = {}
    for point in points(sweep):
        config = sweep.run_config(point.values)
        a: Any = config.algorithm
        found[a.policy_coef, a.value_coef, a.entropy_coef] = point.paper
        assert (config.loop.mae_only_epochs, config.loop.mae_steps_per_update) == (10, 1)
    assert list(found.items()) == list(TABLE3.items())


@pytest.mark.parametrize("table", ["table2", "table3"])
def test_demo_tables_name_the_paper_rows_in_its_order(table: str) -> None:
    demo = points(load_sweep(CONFIGS / f"demo_{table}.yaml"))
    paper = points(load_sweep(CONFIGS / f"sweep_{table}_ucf101.yaml"))
    assert [point.paper for point in demo] == [point.paper for point in paper]
    for one, other in zip(demo, paper, strict=True):
        assert one.row == f"({', '.join(str(value) for value in other.values.values())})"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("sweep_*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_that_is_shipped_loads(path: Path) -> None:
    sweep = load_sweep(path)
    assert len(points(sweep)) > 5 or sweep.config.search == "tpe"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_table*.yaml")), ids=lambda path: path.stem)
def test_the_buffer_of_every_table_holds_the_rollouts_of_its_largest_k(path: Path) -> None:
    sweep = load_sweep(path)
    for point in points(sweep):
        config = sweep.run_config(point.values)
        grid = token_grid(config.data, config.model)
        needed = buffer_bytes(config, grid, config.cluster.num_workers)
        assert needed <= config.cluster.buffer_mb * 2**20, point.name


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"loop.mae_onli_epochs": {"grid": [1]}}, r"unknown field .*mae_onli_epochs; did you mean"),
        (
            {"loop.epochs": {"grid": ["many"]}},
            r"loop\.epochs must be a whole number.*give loop\.epochs",
        ),
        ({"loop.epochs": {"uniform": [1, 9]}}, r"loop\.epochs must be a whole number, got 4\.056"),
        ({"loop.epochs": {"grid": []}}, r"loop\.epochs: grid has no values; name at least one"),
        ({"loop.epochs": {"grid": 3}}, r"loop\.epochs: grid takes a list of values, got 3"),
        ({"loop.epochs": [1, 2]}, r"loop\.epochs must be a domain such as"),
        ({"loop.epochs": {"lattice": [1]}}, r"there is no domain 'lattice'; known: uniform"),
        ({"sampler.mask_ratio": {"uniform": [0.9, 0.5]}}, r"lower end below the upper"),
        ({"sampler.mask_ratio": {"uniform": [0.5, 1.5]}}, r"mask_ratio must be inside \(0, 1\)"),
        ({"optim.base_lr": {"loguniform": [0, 1]}}, r"loguniform needs ends above 0"),
        ({"optim.base_lr": {"loguniform": ["x", 1]}}, r"loguniform takes two numbers"),
        ({"seed": {"grid": [1, 2]}}, r"seed cannot be varied"),
        ({}, r"search random has an empty space"),
    ],
    ids=str,
)
def test_a_space_that_cannot_be_searched_is_refused_with_field_and_way_out(
    space: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        search(tmp_path, space, search="random", num_samples=3)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"search": "table"}, r"search table has an empty table"),
        ({"search": "table", "table": [{"a": 1}], "names": {}}, r"row 1 of table has unknown a"),
        (
            {"search": "table", "table": [{}], "names": {"k": "loop.epochs"}},
            r"row 1 of table lacks k; its columns are k, paper, row, note",
        ),
        (
            {"search": "table", "table": [{"k": 2}, {"k": 2}], "names": {"k": "loop.epochs"}},
            r"k=2 appears twice; keep one row",
        ),
        ({"search": "random", "space": {"seed": {}}}, r"num_samples must be at least 1, got 0"),
        ({"search": "grid", "space": {"loop.epochs": {"randint": [1, 3]}}}, r"a grid needs listed"),
        ({"scheduler": "pbt", "search": "table", "table": [{}]}, r"pbt is not supported.*use asha"),
        (
            {"scheduler": "asha", "metric": "knn", "search": "table", "table": [{}]},
            r"asha cannot use metric knn",
        ),
        (
            {"search": "tpe", "num_samples": 2, "seeds": [0, 1], "space": {"seed": {}}},
            r"tpe takes one seed",
        ),
        ({"serch": "grid"}, r"unknown field serch; did you mean search\?"),
        ({"seeds": [1, 1]}, r"seeds must be different numbers"),
        (
            {"search": "random", "num_samples": 9, "space": {"loop.epochs": {"randint": [1, 3]}}},
            r"fewer than num_samples 9 points \(3 found\)",
        ),
    ],
    ids=str,
)
def test_a_sweep_that_makes_no_sense_is_refused(
    fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        points(load_sweep(write(tmp_path, **fields)))


def test_flags_change_base_and_sweep_but_not_what_is_varied(tmp_path: Path) -> None:
    path = write(tmp_path, search="grid", space={"loop.epochs": {"grid": [1, 2]}})
    flags = ["--optim.betas", "0.8 0.9", "--sweep.seeds", "3 4", "--name", "mine"]
    sweep = load_sweep(path, flags)
    assert sweep.name == "mine"
    assert sweep.run_config({}).optim.betas == (0.8, 0.9)
    names = [(trial.name, trial.seed) for trial in trials(points(sweep), sweep.config.seeds)]
    assert names == [
        ("epochs=1 seed=3", 3),
        ("epochs=2 seed=3", 3),
        ("epochs=1 seed=4", 4),
        ("epochs=2 seed=4", 4),
    ]
    with pytest.raises(UsageError, match=r"--loop\.epochs is varied by .*; leave the flag out"):
        load_sweep(path, ["--loop.epochs", "3"])


def test_the_command_line_lies_over_fixed_fields_and_a_point_over_both(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        search="grid",
        fixed={"optim.batch_size": 8, "optim.base_lr": "1e-2"},
        space={"loop.epochs": {"grid": [3]}},
    )
    config = load_sweep(path, ["--optim.batch_size", "16"]).run_config({"loop.epochs": "5"})
    assert (config.optim.batch_size, config.optim.base_lr, config.loop.epochs) == (16, 0.01, 5)


def test_an_algorithm_in_the_space_leaves_out_fields_that_it_lacks(tmp_path: Path) -> None:
    sweep = search(
        tmp_path,
        {"algorithm.name": {"choice": ["ppo", "reinforce"]}},
        fixed={"algorithm.clip_eps": 0.1, "algorithm.lr": 1e-3},
    )
    names = {
        config.algorithm.name: config.algorithm.lr
        for point in points(sweep)
        for config in [sweep.run_config(point.values)]
    }
    assert names == {"ppo": 1e-3, "reinforce": 1e-3}


def test_draws_stay_inside_repeat_and_a_longer_search_begins_with_the_shorter(
    tmp_path: Path,
) -> None:
    space = {
        "optim.base_lr": {"loguniform": [1e-5, 1e-1]},
        "loop.epochs": {"randint": [1, 3]},
        "sampler.mask_ratio": {"uniform": ["0.5", 0.9]},
    }
    short = points(search(tmp_path, space, search="random", num_samples=5))
    long = points(search(tmp_path, space, search="random", num_samples=40))
    assert long[:5] == short
    values = [point.values for point in long]
    assert all(1e-5 <= v["optim.base_lr"] <= 1e-1 and 1 <= v["loop.epochs"] <= 3 for v in values)
    assert {v["loop.epochs"] for v in values} == {1, 2, 3}
    # Uniform in the logarithm: half of the draws lie below the geometric mean, 1e-3.
    assert 10 <= sum(v["optim.base_lr"] < 1e-3 for v in values) <= 30
    assert all(0.5 <= v["sampler.mask_ratio"] <= 0.9 for v in values)


def test_a_range_is_drawn_to_its_ends_and_not_beyond() -> None:
    domain = parse_domain("x", {"uniform": [0.12345678, 0.12345679]}, "here")
    assert 0.12345678 <= domain.draw(random.Random(0)) <= 0.12345679
    assert Domain("choice", ("a",)).draw(random.Random(0)) == "a"


def test_settings_survive_being_written_down(tmp_path: Path) -> None:
    sweep = search(tmp_path, {"loop.epochs": {"grid": [1, 2]}})
    assert json.loads(json.dumps(settings(sweep)))["sweep"]["space"] == sweep.config.space


def test_trial_folders_need_no_quotes(tmp_path: Path) -> None:
    sweep = search(tmp_path, {"sampler.name": {"grid": ["tats"]}, "loop.epochs": {"grid": [2]}})
    (trial,) = trials(points(sweep), (0,))
    assert (trial.name, trial.folder) == ("name=tats epochs=2", "name=tats_epochs=2")


def test_demo_scales_mae_only_epochs_as_its_length() -> None:
    demo, paper = (
        load_sweep(CONFIGS / f"{name}.yaml") for name in ("demo_table2", "sweep_table2_ucf101")
    )
    share = demo.run_config({}).loop.epochs / paper.run_config({}).loop.epochs
    for one, other in zip(points(demo), points(paper), strict=True):
        here, there = (s.run_config(p.values).loop for s, p in ((demo, one), (paper, other)))
        assert here.mae_only_epochs == math.ceil(share * there.mae_only_epochs)
        assert here.mae_steps_per_update == there.mae_steps_per_update
