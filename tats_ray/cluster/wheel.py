"""Build a wheel of the running package, the only code that is uploaded to a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import tats_ray
from tats_ray.core.errors import UsageError

DISTRIBUTION = "tats-ray"
# What of a checkout a wheel is built from.
_FILES = ("pyproject.toml", "README.md", "LICENSE")
_FOLDERS = ("tats_ray", "envs", "benchmarks", "examples")
_ONE_DATE = "315532800"
"""Of all files, 1980-01-01: the same sources give the same bytes, and are uploaded once."""
_WRITTEN_BY_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json")


def build_wheel(folder: Path) -> Path:
    """Write the wheel of the running code into a folder; needs no network.

    Raises:
        UsageError: when pip cannot build it, or when there is nothing to build it from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkout = Path(tats_ray.__path__[0]).parent
    if (checkout / "pyproject.toml").is_file():
        return _built(checkout, folder)
    return _repacked(folder)


def requirements() -> dict[str, str]:
    """Distribution -> bounds, of what this package itself asks for, without extras."""
    wanted = map(Requirement, metadata.requires(DISTRIBUTION) or [])
    return {
        one.name: str(one.specifier)
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
    }


def _built(checkout: Path, folder: Path) -> Path:
    """By pip, from a copy: setuptools leaves its work in the folder that it builds."""
    with tempfile.TemporaryDirectory() as work:
        source, built = Path(work, "source"), Path(work, "built")
        source.mkdir()
        for path in map(checkout.joinpath, _FILES):
            shutil.copy(path, source)
        for path in map(checkout.joinpath, _FOLDERS):
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(path, source / path.name, ignore=ignored)
        options = "--quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation"
        # Without a deadline: it works on local files only, in the foreground.
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", *options.split(), "-w", built, source],
            env={**os.environ, "SOURCE_DATE_EPOCH": _ONE_DATE},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            why = done.stderr.strip().splitlines() or ["no reason given"]
            raise UsageError(
                f"pip cannot build a wheel from {checkout}: {why[-1].strip()}; "
                'run `python -m ensurepip` and `python -m pip install "setuptools>=77"`'
            )
        (wheel,) = built.glob("*.whl")
        return Path(shutil.copy(wheel, folder))


def _repacked(folder: Path) -> Path:
    """From the installed files: without a checkout there are no sources that pip could build."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    # Compiled files carry no hash, and scripts lie outside the folder of packages.
    own = {
        file: f"{file},sha256={file.hash.value},{file.size}\n"
        for file in files
        if file.hash and ".." not in file.parts and file.name not in _WRITTEN_BY_INSTALLERS
    }
    if not any(file.locate() == Path(tats_ray.__file__) for file in own):
        raise UsageError(
            f"{tats_ray.__path__[0]} is neither a checkout nor installed by pip, so there is "
            "nothing to make a wheel of; run `pip install .` in a checkout"
        )
    stem = f"tats_ray-{tats_ray.__version__}"
    record = f"{stem}.dist-info/RECORD"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in own:
            wheel.writestr(zipfile.ZipInfo(str(file)), file.read_binary(), zipfile.ZIP_DEFLATED)
        wheel.writestr(zipfile.ZipInfo(record), "".join([*own.values(), f"{record},,\n"]))
    return path
