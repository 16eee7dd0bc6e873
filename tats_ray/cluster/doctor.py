"""`tats doctor`: what works on this machine, and a line of help for what does not."""

from __future__ import annotations

import platform
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from tats_ray.cluster.findings import Finding, refuse, show, try_out
from tats_ray.cluster.machine import GIB, auth_finding, machine_checks
from tats_ray.core.errors import UsageError


def doctor(*, is_node: bool = False, lock: Path | None = None, storage: str = "") -> None:
    """Print one table; a node of a cluster is held to more.

    Args:
        is_node: also check what a cluster needs: auth token, host name, name lookup.
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


def node_checks() -> list[tuple[str, Callable[[], Finding]]]:
    return [
        ("auth token of node", lambda: auth_finding(is_required=True)),
        ("host name", _host_name),
    ]


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
            f"other nodes would connect to themselves: give {name} its own address in /etc/hosts"
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
            text = f"{have}, but {path.name} has {pins.get(name, 'none')}"
            yield Finding(f"lock of {name}", text, "FAIL", advice)


def check_storage(folder: Path) -> Finding:
    """Whether a file can be written there and read back."""
    mark = folder / f".tats-{uuid.uuid4().hex[:8]}"
    try:
        mark.write_text("written")
        is_same = mark.read_text() == "written"
        mark.unlink()
    except OSError as error:
        advice = "mount the shared folder there, writable for this user"
        return Finding("storage", f"{folder}: {error.strerror}", "FAIL", advice)
    free = shutil.disk_usage(folder).free / GIB
    return Finding("storage", f"{folder}: {free:.0f} GB free", "ok" if is_same else "FAIL")
