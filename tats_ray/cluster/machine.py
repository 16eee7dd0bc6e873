"""Checks of one machine: each writes, reads or computes something, as a run would."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tats_ray.cluster.findings import Finding
from tats_ray.core.words import counted

GIB = 2**30
SHM_GB, DISK_GB = 2.0, 10.0
"""Below these a run may work, but not well."""
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_LONGEST_SOCKET = 107
"""Bytes in the path of a Unix socket."""


def machine_checks() -> list[tuple[str, Callable[[], Finding]]]:
    return [
        ("python", _python),
        ("torch", _torch),
        ("gpu", _gpu),
        ("decoder pyav", lambda: _decoder("pyav")),
        ("decoder decord", lambda: _decoder("decord")),
        ("ffmpeg bundles", _ffmpeg),
        ("ray", _ray),
        ("ray's folders", _ray_folders),
        ("auth token", lambda: auth_finding(is_required=False)),
        ("shared memory", _shared_memory),
        ("disk", _disk),
    ]


def _python() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("python", f"{platform.python_version()}, {counted(cores or 1, 'core')}")


def _torch() -> Finding:
    ones = torch.ones(64, 64)
    assert float((ones @ ones).sum()) == 64**3
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return Finding(
        "torch", f"{torch.__version__} ({built}), {counted(torch.get_num_threads(), 'thread')}"
    )


def _gpu() -> Finding:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        ones = torch.ones(64, 64, device="cuda")
        assert float((ones @ ones).sum()) == 64**3
        return Finding("gpu", ", ".join(names))
    driver = Path("/proc/driver/nvidia/version")
    if not driver.exists():
        return Finding("gpu", "none; training runs on the CPU")
    found = re.search(r"Module\D*(\d+[\d.]*)", driver.read_text())
    version = found[1] if found else "unknown"
    return Finding(
        "gpu",
        f"driver {version}, but torch cannot use it",
        "FAIL",
        f"torch is built for CUDA {torch.version.cuda or 'none'}: install a newer driver, or a "
        "torch for this driver's CUDA",
    )


def _decoder(backend: Literal["pyav", "decord"]) -> Finding:
    """Write a video and read it back, as a run would."""
    from tats_ray.data.decode import read_frames
    from tats_ray.data.encode import write_video
    from tats_ray.data.readers.jumping import label_of

    made = np.full((8, 32, 32, 3), 90, dtype=np.uint8)
    made[4:] = 180
    name = f"decoder {backend}"
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clip.mp4")
        write_video(path, made)
        read = read_frames(path, lambda n: [0, n - 1], backend=backend)
    if np.abs(read.astype(int) - made[[0, 7]]).max() > 12:
        return Finding(name, "returns other frames than were written", "FAIL", "reinstall it")
    version = metadata.version("av") if backend == "pyav" else label_of(backend).split()[1]
    return Finding(name, f"{version}, 8 frames written and read back")


def _ffmpeg() -> Finding:
    """All decoders but torchcodec carry an FFmpeg of their own."""
    found = []
    for package in ("av", "decord", "decord2", "torchcodec"):
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        names = {re.sub(r"-[0-9a-f]{8}", "", f.name) for f in files if "libavcodec" in f.name}
        found.append(f"{package}: {', '.join(sorted(names)) or 'none, it uses that of the system'}")
    return Finding("ffmpeg bundles", "; ".join(found))


def _ray() -> Finding:
    from tats_ray.runtime.cluster.cluster_file import ray_version

    version = ray_version()
    wants = next((r for r in metadata.requires("tats-ray") or [] if r.startswith("ray[")), "")
    missing = [name for name in ("aiohttp", "grpc") if find_spec(name) is None]
    if missing:
        text = f"{version} without {', '.join(missing)}"
        return Finding("ray", text, "FAIL", f"pip install '{wants}'")
    return Finding("ray", version)


def _ray_folders() -> Finding:
    """Ray keeps its auth token in the home folder, and its sockets and logs in the other one."""
    temporary = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
    what, is_short = "ray's folders", "set RAY_TMPDIR to a short path that you can write to"
    for folder, advice in (
        (Path.home(), "set HOME to a folder that you can write to"),
        (temporary, is_short),
    ):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            return Finding(what, f"{folder}: {error.strerror}", "FAIL", advice)
    if len(str(temporary / _SOCKET)) > _LONGEST_SOCKET:
        return Finding(what, f"{temporary} is too long for the names of sockets", "FAIL", is_short)
    return Finding(what, f"{Path.home()} and {temporary} can be written to")


def auth_finding(*, is_required: bool) -> Finding:
    from tats_ray.runtime.cluster.auth import MAKE_AUTH_TOKEN, find_auth_token

    what = "auth token of node" if is_required else "auth token"
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        text = "switched off by RAY_AUTH_MODE=disabled"
        advice = "anyone who reaches a port of Ray runs code here; unset RAY_AUTH_MODE"
        return Finding(what, text, "FAIL" if is_required else "note", advice)
    found = find_auth_token()
    if found is None:
        text = "no auth token yet; Ray makes one for runs on this machine"
        advice = f"a cluster needs one: {MAKE_AUTH_TOKEN}"
        return Finding(what, text, "FAIL" if is_required else "note", advice)
    if not found.is_private:
        advice = f"chmod 600 {found.source}"
        text = f"{found.source} can be read by other users"
        return Finding(what, text, "FAIL" if is_required else "note", advice)
    return Finding(what, f"from {found.source}, mode {mode or 'not set'}")


def _shared_memory() -> Finding:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding("shared memory", "no /dev/shm; Ray uses the temporary folder", "note")
    free = shutil.disk_usage(path).free / GIB
    text = f"/dev/shm {free:.1f} GB free"
    if free < SHM_GB:
        advice = "Ray's object store falls back to disk; in Docker use --shm-size=8g"
        return Finding("shared memory", text, "note", advice)
    return Finding("shared memory", text)


def _disk() -> Finding:
    places = {"here": Path.cwd(), "temporary files": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(path).free / GIB for name, path in places.items()}
    text = ", ".join(f"{gb:.0f} GB free {name}" for name, gb in free.items())
    if min(free.values()) < DISK_GB:
        return Finding(
            "disk", text, "note", "checkpoints of ViT-B take 1.2 GB each, Ray's logs more"
        )
    return Finding("disk", text)
