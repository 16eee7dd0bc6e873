"""What is shipped: one package, small and typed; bounds that were tried; a lock that is full."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tats_ray import __version__
from tats_ray.cluster.wheel import build_wheel

if sys.version_info >= (3, 11):
    import tomllib
else:  # the locked install is 3.11; elsewhere pytest brings this one
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = {
    canonicalize_name(pin.name): pin
    for pin in map(Requirement, (ROOT / "requirements.lock").read_text().splitlines())
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_one_package_with_all_code_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    own = [name for name in names if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in own} == {"tats_ray"}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tats_ray").rglob("*.py")}
    for beside in ("envs", "benchmarks", "examples"):
        found = {f"tats_ray/{p.relative_to(ROOT)}" for p in (ROOT / beside).rglob("*.py")}
        assert found, beside
        modules |= found
    networks = {f"tats_ray/checkpoints/tiny_{name}.safetensors" for name in ("mae", "sampler")}
    page = {f"tats_ray/view/page/report.{kind}" for kind in ("css", "js")}
    assert set(own) == modules | networks | page | {"tats_ray/py.typed"}
    assert wheel.stat().st_size < 2_000_000


def test_wheel_installs_the_command_and_says_its_version(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    name = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
    entries = ConfigParser()
    entries.read_string(archive.read(name).decode())
    assert entries["console_scripts"]["tats"] == "tats_ray.__main__:main"
    assert wheel.name.startswith(f"tats_ray-{__version__}-py3-none-any")
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_plain_job_submission_uploads_the_whole_package_and_no_data(tmp_path: Path) -> None:
    """What `ray job submit --working-dir .` leaves out, by Ray's own reading of both files."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, tmp_path)
    left_out = packaging.get_excludes_from_ignore_files(tmp_path, include_gitignore=True)

    def is_uploaded(name: str) -> bool:
        return not any(excludes(tmp_path / name) for excludes in left_out)

    tops = ("tats_ray", "envs", "benchmarks", "examples")
    parts = [p.relative_to(ROOT) for top in tops for p in (ROOT / top).rglob("*")]
    parts = [p for p in parts if "__pycache__" not in p.parts and p.parts[1:2] != ("results",)]
    assert [str(part) for part in parts if not is_uploaded(str(part))] == []
    for name in ("data/demo/train.csv", "runs/demo/config.yaml", "tests/test_docs.py"):
        assert not is_uploaded(name), name


@pytest.mark.parametrize(
    "oldest", ["torch==2.11.0", "torchvision==0.26.0", "ray==2.60.0", "decord==0.6.0"]
)
def test_lower_bounds_let_what_gpu_images_carry_through(oldest: str) -> None:
    name, _, version = oldest.partition("==")
    wanted = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == name)
    assert wanted.specifier.contains(version)


@pytest.mark.parametrize(
    "line", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
)
def test_lock_pins_every_dependency_inside_its_bounds(line: str) -> None:
    wanted = Requirement(line)
    (pin,) = LOCK[canonicalize_name(wanted.name)].specifier
    assert pin.operator == "=="
    assert wanted.specifier.contains(pin.version)


def test_lock_holds_exact_versions_only() -> None:
    for name, pin in LOCK.items():
        assert re.fullmatch(r"==[\w.+!]+", str(pin.specifier)), name


def test_readme_opens_with_the_two_commands() -> None:
    first_screen = "".join((ROOT / "README.md").read_text().splitlines(keepends=True)[:20])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    private = re.compile(rb"(?<![\w.])/" + rb"(?:work|root|home)/\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix != ".png":
            found = private.search(path.read_bytes())
            assert found is None, f"{name}: {found}"
