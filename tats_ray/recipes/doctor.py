"""`tats doctor`: what works on this machine, and a line of help for what does not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tats_ray.core.errors import UsageError
from tats_ray.recipes.findings import Finding, refuse, show, try_out

GIB = 2**30
SHM_GB, DISK_GB = 2.0, 10.0
"""Below these a run may work, but not well."""


def doctor(*, is_node: bool = False, lock: Path | None = None, storage: str = "") -> None:
    """Print one table; a node of a cluster is held to more.

    Args:
        is_node: also check what a cluster needs: token, host name, name lookup.
        lock: requirements.lock whose Ray and torch must be the ones installed.
        storage: folder that must be writable.

    Raises:
        TatsError: when something failed.
    """
    findings = [try_out(what, check) for what, check in machine_checks()]
    if is_node:
        findings += [try_out(what, check) for what, check in node_checks()]
    if lock is not None:
        findings += list(check_lock(lock))
    if storage:
        findings.append(check_storage(Path(storage)))
    name = f"{platform.node()}, {platform.system()} {platform.machine()}"
    refuse(show(name, findings), "doctor")


def machine_checks() -> list[tuple[str, Callable[[], Finding]]]:
    return [
        ("python", _python),
        ("torch", _torch),
        ("gpu", _gpu),
        ("decoder pyav", lambda: _decoder("pyav")),
        ("decoder decord", lambda: _decoder("decord")),
        ("ffmpeg bundles", _ffmpeg),
        ("ray", _ray),
        ("token auth", lambda: _token(is_required=False)),
        ("shared memory", _shared_memory),
        ("disk", _disk),
    ]


def node_checks() -> list[tuple[str, Callable[[], Finding]]]:
    return [("token of node", lambda: _token(is_required=True)), ("host name", _host_name)]


def _python() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("python", f"{platform.python_version()}, {cores} cores")


def _torch() -> Finding:
    ones = torch.ones(64, 64)
    assert float((ones @ ones).sum()) == 64**3
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return Finding("torch", f"{torch.__version__} ({built}), {torch.get_num_threads()} threads")


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

    made = np.full((8, 32, 32, 3), 90, dtype=np.uint8)
    made[4:] = 180
    name = f"decoder {backend}"
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clip.mp4")
        write_video(path, made)
        read = read_frames(path, lambda n: [0, n - 1], backend=backend)
    if np.abs(read.astype(int) - made[[0, 7]]).max() > 12:
        return Finding(name, "shows other frames than were written", "FAIL", "reinstall it")
    package = "av" if backend == "pyav" else backend
    return Finding(name, f"{metadata.version(package)}, 8 frames written and read back")


def _ffmpeg() -> Finding:
    """Both decoders carry an FFmpeg of their own, so the system needs none."""
    found = []
    for package in ("av", "decord"):
        files = metadata.files(package) or []
        names = {re.sub(r"-[0-9a-f]{8}", "", f.name) for f in files if "libavcodec" in f.name}
        found.append(f"{package}: {', '.join(sorted(names)) or 'none, it uses the system one'}")
    return Finding("ffmpeg bundles", "; ".join(found))


def _ray() -> Finding:
    from tats_ray.runtime.cluster_file import ray_version

    version = ray_version()
    wants = next((r for r in metadata.requires("tats-ray") or [] if r.startswith("ray[")), "")
    missing = [name for name in ("aiohttp", "grpc") if not _has(name)]
    if missing:
        return Finding("ray", f"{version} without {missing}", "FAIL", f"pip install '{wants}'")
    return Finding("ray", version)


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _token(*, is_required: bool) -> Finding:
    from tats_ray.runtime.auth import MAKE_TOKEN, find_token

    what = "token of node" if is_required else "token auth"
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        text = "switched off by RAY_AUTH_MODE=disabled"
        advice = "anyone who reaches a port of Ray runs code here; unset RAY_AUTH_MODE"
        return Finding(what, text, "FAIL" if is_required else "note", advice)
    found = find_token()
    if found is None:
        text = "no token yet; Ray makes one for runs on this machine"
        advice = f"clusters need one: {MAKE_TOKEN}"
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
        return Finding("disk", text, "note", "checkpoints of ViT-B take 1.2 GB each, Ray logs more")
    return Finding("disk", text)


def _host_name() -> Finding:
    """Gloo and NCCL ask for the address of this name; a dead name server costs 10 s each time."""
    name, start = socket.gethostname(), time.monotonic()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        advice = f"add a line '<address of this node> {name}' to /etc/hosts of every node"
        return Finding("host name", f"{name} has no address", "FAIL", advice)
    seconds = time.monotonic() - start
    if address.startswith("127."):
        advice = (
            f"other nodes would be sent to themselves: give {name} its own address in /etc/hosts"
        )
        return Finding("host name", f"{name} is {address}", "note", advice)
    if seconds > 2:
        advice = "an unreachable name server delays every connection: use /etc/hosts"
        return Finding("host name", f"{name} is {address}, after {seconds:.0f} s", "note", advice)
    return Finding("host name", f"{name} is {address}")


def check_lock(path: Path) -> Iterator[Finding]:
    """Whether Ray and torch are the ones that a lock file pins.

    Raises:
        UsageError: for a lock file that cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UsageError(f"--lock {path}: {error.strerror}") from error
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", "\n".join(lines), re.MULTILINE))
    for name in ("ray", "torch"):
        have = metadata.version(name)
        if have.partition("+")[0] == pins.get(name, "").partition("+")[0]:
            yield Finding(f"lock of {name}", f"{have} as in {path.name}")
        else:
            advice = f"{sys.executable} -m pip install -r {path}"
            text = f"{have}, {path.name} has {pins.get(name, 'none')}"
            yield Finding(f"lock of {name}", text, "FAIL", advice)


def check_storage(folder: Path) -> Finding:
    """Whether a file can be written there and read back."""
    mark = folder / f".tats-{uuid.uuid4().hex[:8]}"
    try:
        mark.write_text("tats")
        is_same = mark.read_text() == "tats"
        mark.unlink()
    except OSError as error:
        advice = "mount the folder that all nodes share there, writable for this user"
        return Finding("storage", f"{folder}: {error.strerror}", "FAIL", advice)
    free = shutil.disk_usage(folder).free / GIB
    return Finding("storage", f"{folder}: {free:.0f} GB free", "ok" if is_same else "FAIL")
