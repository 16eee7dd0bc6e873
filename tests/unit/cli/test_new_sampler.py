"""The files that `tats new sampler` writes are checked and run as their owner would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.__main__ import main
from tats_ray.cli.new import Written, write_from_example
from tats_ray.config.plugins import SAMPLERS
from tats_ray.core.errors import UsageError

ROOT = Path(__file__).parents[3]


def new_sampler(name: str, folder: Path) -> Written:
    return write_from_example("sampler", name, folder, taken=SAMPLERS)


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
    new_sampler(name, tmp_path)
    rules = "A,B,C4,D2,D3,D4,E,F,I,N,PIE,PT,RET,RUF,SIM,UP,W"
    for length in ("88", "100"):
        own = ["--isolated", "--line-length", length]
        run("ruff", "format", *own, "--check", ".", cwd=tmp_path)
        ignored = ["--ignore", "D203,D205,D213,D400,D401,D407,D413,D415"]
        run("ruff", "check", *own, "--select", rules, *ignored, ".", cwd=tmp_path)


def test_written_files_pass_mypy_and_their_own_test(tmp_path: Path) -> None:
    new_sampler("own_sampler", tmp_path)
    run("mypy", "--strict", "--follow-imports=silent", ".", cwd=tmp_path)
    run("pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)


def test_written_test_notices_logits_that_belong_to_other_tokens(tmp_path: Path) -> None:
    made = new_sampler("own_sampler", tmp_path)
    text = made.source.read_text()
    made.source.write_text(text.replace("return logits", "return logits.roll(1, 1)"))
    assert made.source.read_text() != text
    with pytest.raises(AssertionError, match="1 failed, 1 passed"):
        run("pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)


def test_command_prints_the_two_files_and_how_to_train_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", "sampler", "own_sampler", "--folder", str(tmp_path)])
    source, test, command = capsys.readouterr().out.splitlines()
    example = (ROOT / "examples" / "custom_sampler.py").read_text()
    as_example = Path(source).read_text().replace("own_sampler", "custom_sampler")
    assert as_example.replace("OwnSampler", "CustomSampler") == example
    assert Path(test).is_file()
    assert command == (
        f"PYTHONPATH={tmp_path}${{PYTHONPATH:+:$PYTHONPATH}} tats pretrain CONFIG "
        "--sampler.name own_sampler:OwnSampler"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "my-sampler",
            "sampler name 'my-sampler' is not a module name; use a name like my_sampler",
        ),
        ("class", "'class' is already used, by Python or a package"),
        ("torch", "'torch' is already used, by Python or a package"),
        ("tube", "'tube' is already used, by Python or a package"),
        ("a" * 31, "is longer than 30 characters"),
    ],
)
def test_name_that_cannot_be_is_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        new_sampler(name, tmp_path)
    assert not list(tmp_path.iterdir())
