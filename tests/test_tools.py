"""The small commands as typed: what they print, and the one line for a wrong request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tats_ray.__main__ import main
from tats_ray.config.load import dump_config, parse_config


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare"], r"compare needs run folders; use tats compare RUN RUN"),
        (["compare", "nowhere"], r"nowhere is no run"),
        (["compare", "nowhere", "--metrik", "x"], r"unexpected --metrik"),
        (["new", "algorithm", "no-name"], r"'no-name' is no module name"),
        (["new", "algorithm", "mine", "--folder", "nowhere"], r"folder nowhere does not exist"),
        (["env", "card", "--id", "TATS/Nothing-v0"], r"'TATS/Nothing-v0' cannot be made"),
        (["env", "card", "--name", "x"], r"unexpected --name x; see tats --help"),
        (["bench", "scale", "--size", "2"], r"unexpected --size 2; see tats bench --help"),
        (["env", "baseline", "--clips", "1"], r"--clips must be at least 2, got 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_request_ends_in_one_line_and_code_two(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.startswith("tats: ")
    assert error.count("\n") == 1


def test_new_algorithm_prints_its_files_and_how_to_train_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", "algorithm", "my_rule", "--folder", str(tmp_path)])
    source, test, command = capsys.readouterr().out.splitlines()
    assert Path(source).is_file()
    assert Path(test).is_file()
    assert command.endswith("tats pretrain CONFIG --algorithm.name my_rule:MyRuleConfig")


def test_compare_takes_runs_and_a_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        run = tmp_path / str(seed)
        run.mkdir()
        (run / "config.yaml").write_text(dump_config(parse_config({"name": "x", "seed": seed})))
        record = f'{{"step": 5, "epoch": 0, "time": 1.0, "mae/loss": {seed}.5}}\n'
        (run / "metrics.jsonl").write_text(record)
    main(["compare", str(tmp_path / "0"), str(tmp_path / "1"), "--metric", "mae/loss"])
    assert "1 [0.5, 1.5]" in capsys.readouterr().out
