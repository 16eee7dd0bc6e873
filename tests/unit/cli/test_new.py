"""The files that `tats new` writes are checked and run as their owner would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.__main__ import main
from tats_ray.cli.new import Written, write_from_example
from tats_ray.config.load import ALGORITHMS, parse_config
from tats_ray.core.errors import UsageError

ROOT = Path(__file__).parents[3]


def new_algorithm(name: str, folder: Path) -> Written:
    return write_from_example("algorithm", name, folder, taken=ALGORITHMS)


def run(*words: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**os.environ, "MYPYPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["pg", "a_name_of_exactly_thirty_chars"])
def test_written_files_are_clean_under_any_usual_line_length(name: str, tmp_path: Path) -> None:
    made = new_algorithm(name, tmp_path)
    assert len(made.source.read_text().splitlines()) < 60
    for path in (made.source, made.test):
        assert not re.search("custom_?algorithm", path.read_text(), re.IGNORECASE)
    rules = "A,B,C4,D2,D3,D4,E,F,I,N,PIE,PT,RET,RUF,SIM,UP,W"
    for length in ("88", "100"):
        own = ["--isolated", "--line-length", length]
        run("ruff", "format", *own, "--check", ".", cwd=tmp_path)
        ignored = ["--ignore", "D203,D205,D213,D400,D401,D407,D413,D415"]
        run("ruff", "check", *own, "--select", rules, *ignored, ".", cwd=tmp_path)


def test_written_files_pass_mypy_and_their_own_test(tmp_path: Path) -> None:
    new_algorithm("own_rule", tmp_path)
    run("mypy", "--strict", "--follow-imports=silent", ".", cwd=tmp_path)
    run("pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)


def test_written_test_notices_a_gradient_of_the_wrong_sign(tmp_path: Path) -> None:
    made = new_algorithm("own_rule", tmp_path)
    text = made.source.read_text()
    made.source.write_text(text.replace("loss = -self", "loss = +self"))
    assert made.source.read_text() != text
    with pytest.raises(AssertionError, match="2 failed, 1 passed"):
        run("pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)


def test_printed_command_names_a_configuration_that_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", "algorithm", "some_rule", "--folder", str(tmp_path)])
    source, test, command = capsys.readouterr().out.splitlines()
    assert {Path(source), Path(test)} == set(tmp_path.iterdir())
    reference = "some_rule:SomeRuleConfig"
    searched = f"PYTHONPATH={tmp_path}${{PYTHONPATH:+:$PYTHONPATH}}"
    assert command == f"{searched} tats pretrain CONFIG --algorithm.name {reference}"
    monkeypatch.syspath_prepend(str(tmp_path))
    config = parse_config({"algorithm": {"name": reference, "entropy_coef": 0.5}})
    assert type(config.algorithm).__name__ == "SomeRuleConfig"
    assert config.algorithm.name == reference


@pytest.mark.parametrize("before", ["", "/one:/two"])
def test_printed_path_keeps_what_was_searched_before(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", "algorithm", "rule_elsewhere", "--folder", str(tmp_path)])
    searched = capsys.readouterr().out.splitlines()[-1].split(" tats ")[0]
    command = f"{searched} env"
    done = subprocess.run(
        command,
        shell=True,
        env={"PYTHONPATH": before, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = f"PYTHONPATH={tmp_path}" + f":{before}" * bool(before)
    assert expected in done.stdout.splitlines()


def test_file_in_the_current_folder_is_found_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    main(["new", "algorithm", "rule_from_here"])
    command = capsys.readouterr().out.splitlines()[-1]
    reference = "rule_from_here:RuleFromHereConfig"
    assert command == f"tats pretrain CONFIG --algorithm.name {reference}"
    config = parse_config({"algorithm": {"name": reference}})
    assert type(config.algorithm).__name__ == "RuleFromHereConfig"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("3d", "'3d' is not a module name"),
        ("my-rule", "'my-rule' is not a module name"),
        ("MyRule", "'MyRule' is not a module name"),
        ("../rule", "is not a module name"),
        ("class", "'class' is already used, by Python or a package"),
        ("json", "'json' is already used, by Python or a package"),
        ("torch", "'torch' is already used, by Python or a package"),
        ("ppo", "'ppo' is already used, by Python or a package"),
        ("a" * 31, "is longer than 30 characters"),
    ],
)
def test_name_that_cannot_be_is_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        new_algorithm(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["rule.py", "test_rule.py"])
def test_existing_file_is_left_alone(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(UsageError, match=rf"{there} already exists; choose another name"):
        new_algorithm("rule", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere does not exist; make it first"):
        new_algorithm("rule", tmp_path / "nowhere")
