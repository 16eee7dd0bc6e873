"""What `tats submit` uploads and refuses, and the verdicts on nodes, without a cluster."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from tats_ray.cli import Submit, parse
from tats_ray.cluster.cluster_doctor import verdict
from tats_ray.cluster.submit import COMPARED, check_versions, packed_mb, stage
from tats_ray.cluster.wheel import build_wheel, requirements
from tats_ray.core.errors import UsageError
from tats_ray.runtime.cluster.nodes import NodeReport

ROOT = Path(__file__).parents[3]
HERE = {"python": platform.python_version(), **{name: metadata.version(name) for name in COMPARED}}


def test_words_after_the_dashes_are_left_alone() -> None:
    words = "submit --name a --include data.csv -- pretrain x.yaml --loop.epochs 3 --name b"
    command, left = parse(words.split())
    assert isinstance(command, Submit)
    assert (command.name, command.include) == ("a", (Path("data.csv"),))
    assert left == ["pretrain", "x.yaml", "--loop.epochs", "3", "--name", "b"]


def test_wheel_is_repeatable_and_leaves_nothing_in_the_checkout(tmp_path: Path) -> None:
    def left() -> dict[Path, int]:
        kinds = ("*.egg-info/*", "build/lib*", "build/bdist*")
        return {path: path.stat().st_mtime_ns for kind in kinds for path in ROOT.glob(kind)}

    before = left()
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert left() == before


def installed(wheel: Path, site: Path) -> Path:
    """Where pip put the packages of a wheel, as one that a user downloaded."""
    pip = "-m pip install --quiet --no-deps --no-index --disable-pip-version-check --target"
    subprocess.run([sys.executable, *pip.split(), site, wheel], check=True, timeout=120)
    return site


def run_in(site: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=site,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_installed_wheel_runs_its_command_and_makes_the_same_wheel_again(tmp_path: Path) -> None:
    first = build_wheel(tmp_path)
    site = installed(first, tmp_path / "site")
    says = run_in(site, site / "bin" / "tats", "--version")
    assert says.stdout == f"tats {metadata.version('tats-ray')}\n", says.stderr
    made = run_in(site, sys.executable, "-m", "tats_ray", "cluster", "wheel", tmp_path / "again")
    second = Path(made.stdout.strip())
    assert second.parent == tmp_path / "again", made.stderr
    before, after = zipfile.ZipFile(first), zipfile.ZipFile(second)
    (record,) = (name for name in before.namelist() if name.endswith("/RECORD"))
    assert sorted(after.namelist()) == sorted(before.namelist())
    for name in before.namelist():
        lines = [sorted(wheel.read(name).splitlines()) for wheel in (before, after)]
        assert lines[0] == lines[1] if name == record else before.read(name) == after.read(name)
    again = installed(second, tmp_path / "site2")
    assert run_in(again, again / "bin" / "tats", "--version").stdout == says.stdout


def test_code_that_nobody_installed_makes_no_wheel_and_says_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        wheel.extractall(tmp_path / "job")
    for path in (tmp_path / "job").glob("*.dist-info/RECORD"):
        path.unlink()
    made = run_in(tmp_path / "job", sys.executable, "-m", "tats_ray", "cluster", "wheel", "out")
    assert made.returncode == 2
    assert made.stderr.count("\n") == 1
    assert "neither a checkout nor installed by pip" in made.stderr
    assert "run `pip install .` in a checkout" in made.stderr


def test_pip_that_cannot_build_is_quoted_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('no module named setuptools')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UsageError, match="no module named setuptools; run `python -m") as refused:
        build_wheel(tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_upload_holds_the_package_and_named_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("conf/run.yaml", "my_algorithm.py", "data/big.mp4", "extra/a.csv", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "extra" / "runs").mkdir()
    (tmp_path / "extra" / "runs" / "old.pt").write_text("weights")
    words = ["pretrain", "conf/run.yaml", "--data.train_list", "/shared/train.csv"]
    staged = stage(tmp_path / "out", words, [Path("my_algorithm.py"), Path("extra")])
    files = {p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file()}
    own = {name for name in files if not name.startswith("tats_ray")}
    assert own == {"conf/run.yaml", "my_algorithm.py", "extra/a.csv"}
    assert {"tats_ray/envs/token_selection.py", "tats_ray/benchmarks/step.py"} <= files
    assert packed_mb(staged) < 2  # two small networks, and code


@pytest.mark.parametrize("path", ["../x.csv", "missing.csv"])
def test_file_that_cannot_be_uploaded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "x.csv").touch()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=path):
        stage(tmp_path / "out", ["pretrain"], [Path(path)])


def test_versions_are_compared_with_the_packages_own_bounds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_versions(HERE)
    check_versions({**HERE, "torch": "2.11.0+cu130", "python": "3.12.1"})
    assert "2.11.0+cu130" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"ray 2\.59\.0 \(needs .*2\.60"):
        check_versions({**HERE, "ray": "2.59.0"})
    with pytest.raises(UsageError, match=r"python 3\.9\.1"):
        check_versions({**HERE, "python": "3.9.1"})
    with pytest.raises(UsageError, match="decord missing"):
        check_versions({**HERE, "decord": ""})


def test_bounds_are_those_of_pyproject() -> None:
    bounds = requirements()
    assert set(bounds) >= set(COMPARED)
    assert bounds["ray"] == "<2.61,>=2.60"
    assert "pytest" not in bounds


def test_verdict_names_the_first_thing_that_is_wrong() -> None:
    versions = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0", "tats-ray": "0.1.0"}
    head = NodeReport("head", "1", versions, 8, (), "", "ok", 100.0)
    assert verdict(head, head) == "ok"
    assert verdict(replace(head, storage="-"), head) == "ok"
    other = replace(head, versions={**versions, "python": "3.12.1"})
    assert verdict(other, head) == "FAIL python 3.12.1, but the head has 3.11.7"
    assert verdict(replace(head, storage="/s is not shared"), head) == "FAIL /s is not shared"
    assert "torch sees no GPU" in verdict(replace(head, driver="580.1"), head)
    assert verdict(replace(head, error="GetTimeoutError: x"), head) == "FAIL GetTimeoutError: x"
