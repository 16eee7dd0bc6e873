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


def test_wheel_is_small_repeatable_and_holds_what_git_has(tmp_path: Path) -> None:
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 1_000_000
    names = set(zipfile.ZipFile(first).namelist())
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tats_ray").rglob("*.py")}
    sources |= {f"tats_ray/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "envs").glob("*.py")}
    data = {"tats_ray/py.typed", "tats_ray/checkpoints/tiny_mae.safetensors"}
    assert {name for name in names if ".dist-info/" not in name} == sources | data


def test_pip_installs_the_wheel_and_its_command_runs(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    pip = "-m pip install --quiet --no-deps --no-index --disable-pip-version-check --target"
    site = tmp_path / "site"
    subprocess.run([sys.executable, *pip.split(), site, wheel], check=True, timeout=120)
    done = subprocess.run(
        [site / "bin" / "tats", "--version"],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == f"tats {metadata.version('tats-ray')}\n", done.stderr


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
    assert "tats_ray/envs/token_selection.py" in files
    assert packed_mb(staged) < 1


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
    assert verdict(other, head) == "FAIL python 3.12.1, head has 3.11.7"
    assert verdict(replace(head, storage="/s is not shared"), head) == "FAIL /s is not shared"
    assert "torch sees no GPU" in verdict(replace(head, driver="580.1"), head)
    assert verdict(replace(head, error="GetTimeoutError: x"), head) == "FAIL GetTimeoutError: x"
