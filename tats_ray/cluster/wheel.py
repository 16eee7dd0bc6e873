"""The package that is running, as a wheel: what is uploaded to a cluster, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import tats_ray
import tats_ray.envs
from tats_ray.core.errors import UsageError

DISTRIBUTION = "tats-ray"
_SUFFIXES = (".py", ".typed", ".safetensors")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""One date for all files: the same sources give the same bytes, and are uploaded once."""


def build_wheel(folder: Path) -> Path:
    """Write the wheel of the running code into a folder; needs no build tools and no network.

    Raises:
        UsageError: when the package was never installed, so that its requirements are unknown.
    """
    info = f"tats_ray-{tats_ray.__version__}.dist-info"
    files = dict(_sources())
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: tats\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\ntats = tats_ray.__main__:main\n"
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tats_ray-{tats_ray.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return path


def requirements() -> dict[str, str]:
    """Distribution -> bounds, of what this package itself asks for, without extras."""
    found = {}
    for line in metadata.requires(DISTRIBUTION) or []:
        wanted = line.partition(";")
        if "extra" not in wanted[2]:
            name = wanted[0].partition("[")[0].strip(" <>=!~.,0123456789")
            found[name] = wanted[0].rpartition("]")[2].removeprefix(name).strip()
    return found


def _sources() -> Iterator[tuple[str, bytes]]:
    """(name in the wheel, bytes); a checkout keeps the environments beside the package."""
    package, envs = Path(tats_ray.__path__[0]), Path(tats_ray.envs.__path__[0])
    for top, under in ((package, "tats_ray"), (envs, "tats_ray/envs")):
        for path in sorted(top.rglob("*")):
            if path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
                name = f"{under}/{path.relative_to(top).as_posix()}"
                if under != "tats_ray" or not name.startswith("tats_ray/envs/"):
                    yield name, path.read_bytes()


def _metadata() -> str:
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("METADATA")
    except metadata.PackageNotFoundError:
        text = None
    if not text:
        raise UsageError("tats-ray is not installed here; run `pip install -e .` in the checkout")
    head = "\n".join(line for line in text.partition("\n\n")[0].splitlines())
    version = metadata.version(DISTRIBUTION)
    return head.replace(f"\nVersion: {version}\n", f"\nVersion: {tats_ray.__version__}\n") + "\n"


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
