"""`tats cluster lint`: check a cluster file before it costs anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tats_ray.cluster.findings import Finding, refuse, show
from tats_ray.cluster.kuberay_lint import lint_manifest
from tats_ray.config.file_kinds import refuse_other_kinds
from tats_ray.config.load import read_yaml
from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.runtime.cluster.cluster_file import schema_error
from tats_ray.runtime.resources.request import DECODE

Tree = Mapping[str, Any]

CUDA_DRIVERS = {"11": 450, "12": 525, "13": 580}
"""CUDA's major version -> oldest driver of NVIDIA's that runs it, by its minor-version rule."""


def cluster_lint(file: Path) -> None:
    """Print one finding per line.

    Raises:
        UsageError: for a file that cannot be read.
        TatsError: when something in it would not work.
    """
    config = read_yaml(file)
    refuse_other_kinds(config, file, "cluster", "manifest")
    is_manifest = "apiVersion" in config
    try:
        findings = [*(lint_manifest(config) if is_manifest else lint_ray_up(config, file))]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{file}: something in it has another form than in such a file ({error!r}); compare it "
            "with those in cluster/"
        ) from error
    refuse(show(str(file), findings), "lint")


def lint_ray_up(config: Tree, file: Path) -> Iterator[Finding]:
    """Findings about a file for `ray up`."""
    wrong = schema_error(config)
    if wrong:
        yield Finding("schema", wrong, "FAIL", "Ray does not know this name or value")
        return
    yield Finding("schema", "valid by Ray's own schema")
    yield _placeholders(file)
    yield from _images(config)
    yield from _mounts(config, file)
    yield _self_check(config)
    yield from _starts(config)
    yield from _openings(config)
    yield from _decoding(config)
    yield from _costs(config)
    if config["provider"]["type"] == "local":
        advice = f"RAY_UP_enable_autoscaler_v2=0 ray up {file}"
        yield Finding("provider", "local: Ray's newer autoscaler never starts its workers", "note",
                      advice)  # fmt: skip


def pins(lock: Path) -> dict[str, str]:
    """Package -> version of a lock file; empty where there is none."""
    text = lock.read_text() if lock.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE))


def _placeholders(file: Path) -> Finding:
    lines = [line.partition("#")[0] for line in file.read_text().splitlines()]
    found = [number for number, line in enumerate(lines, 1) if "EDIT" in line]
    if not found:
        return Finding("placeholders", "none left")
    where = ", ".join(map(str, found))
    return Finding("placeholders", f"EDIT in line {where}", "note", "fill in your own values")


def _lock(config: Tree, file: Path) -> dict[str, str]:
    for local in config.get("file_mounts", {}).values():
        if Path(local).name == "requirements.lock":
            return pins(_near(file, local))
    return {}


def _near(file: Path, local: str) -> Path:
    """`ray up` resolves from the folder it runs in, which is this file's or its parent's."""
    path = Path(local).expanduser()
    choices = [path, file.parent / path, file.parent.parent / path]
    return next((choice for choice in choices if choice.exists()), path)


def _images(config: Tree) -> Iterator[Finding]:
    docker = config.get("docker") or {}
    images = [docker[k] for k in ("image", "head_image", "worker_image") if docker.get(k)]
    if not images:
        yield Finding("image", "none: the machines' own Python, which must be the same everywhere")
    tags = {re.sub(r"-(cpu|gpu|cu\d+)$", "", image) for image in images}
    if len(tags) > 1:
        yield Finding("image", f"head and workers differ: {', '.join(sorted(tags))}", "FAIL",
                      "Ray and Python must be the same on all nodes")  # fmt: skip
    elif images:
        yield Finding("image", f"one Ray and Python: {tags.pop()}")


def _mounts(config: Tree, file: Path) -> Iterator[Finding]:
    for remote, local in config.get("file_mounts", {}).items():
        path = _near(file, local)
        if path.exists() and (path.is_file() or any(path.iterdir())):
            continue
        make = {
            "auth_token": "ray get-auth-token --generate && chmod 600 ~/.ray/auth_token",
            "dist": "tats cluster wheel dist",
        }.get(path.name, "create it first")
        yield Finding("file mounts", f"{remote}: {local} is missing here", "FAIL", make)
    found = _lock(config, file)
    if not found:
        return
    images = str(config.get("docker", {}))
    wanted = re.findall(r"ray:(\d+\.\d+\.\d+)", images)
    if any(version != found.get("ray") for version in wanted):
        text = f"the image has Ray {wanted[0]}, requirements.lock has {found.get('ray')}"
        yield Finding(
            "versions", text, "FAIL", "use an image with the Ray version of the lock file"
        )
    else:
        yield Finding("versions", f"Ray {found.get('ray')}, torch {found.get('torch')} everywhere")
    if "cuda-toolkit" in found:
        cuda = found["cuda-toolkit"]
        driver = CUDA_DRIVERS.get(cuda.partition(".")[0], 0)
        text = f"torch includes CUDA {cuda}: GPU nodes need driver {driver} or newer"
        advice = "cannot be checked from here; `tats cluster doctor` checks the nodes"
        yield Finding("driver", text, "note", advice)


def _self_check(config: Tree) -> Finding:
    last = (config.get("setup_commands") or [""])[-1]
    if "tats doctor --node" not in last:
        advice = "end setup_commands with `tats doctor --node`, so that a bad node is refused"
        return Finding("self-check", "setup_commands do not end with one", "FAIL", advice)
    storage = re.search(r"--storage (\S+)", last)
    return Finding("self-check", f"tats doctor --node, storage {storage[1] if storage else 'none'}")


def _starts(config: Tree) -> Iterator[Finding]:
    for kind in ("head", "worker"):
        start = " ".join(config.get(f"{kind}_start_ray_commands") or [])
        if "RAY_AUTH_MODE=token" not in start:
            advice = f"export RAY_AUTH_MODE=token in {kind}_start_ray_commands"
            yield Finding(
                "auth token",
                f"off on the {kind}: anyone who reaches it can run code",
                "FAIL",
                advice,
            )
    head = " ".join(config.get("head_start_ray_commands") or [])
    if "--dashboard-host=127.0.0.1" not in head:
        advice = "add --dashboard-host=127.0.0.1 and reach it with `ray dashboard`"
        yield Finding("dashboard", "the job server is open to the network", "FAIL", advice)
    else:
        yield Finding("dashboard", "on the loopback interface, reached through a tunnel")
    if "RAY_JOB_STOP_WAIT_TIME_S" not in head:
        advice = "export RAY_JOB_STOP_WAIT_TIME_S=300 in head_start_ray_commands"
        yield Finding("stopping", "a stopped job has only 3 s to save", "note", advice)


def _openings(config: Tree) -> Iterator[Finding]:
    """What of the cloud's own firewall can be seen here."""
    kind, types = config["provider"]["type"], config.get("available_node_types", {})
    configs: Sequence[Tree] = [node.get("node_config", {}) for node in types.values()]
    if kind == "aws" and not all(node.get("SecurityGroupIds") for node in configs):
        advice = "make a group as cluster.yaml shows, and name it in SecurityGroupIds"
        yield Finding("firewall", "Ray's default group opens SSH to the internet", "FAIL", advice)
    elif kind == "gcp" and not all(node.get("networkInterfaces") for node in configs):
        advice = "make a network as cluster/gcp.yaml shows, and name it in networkInterfaces"
        yield Finding("firewall", "the default network opens SSH to the internet", "FAIL", advice)
    else:
        own = "your own" if kind == "local" else "a group or network of yours"
        yield Finding("firewall", f"{own}: open only SSH to yourself, and everything inside")
    ports = re.findall(r"--ray-client-server-port|0\.0\.0\.0/0", str(config))
    if ports:
        yield Finding("ports", f"{ports[0]} opens more than SSH", "FAIL", "remove it")


def _decoding(config: Tree) -> Iterator[Finding]:
    """Nodes for the decode actors of `data.reader: ray`, each of which takes a CPU, too."""
    for name, node in config.get("available_node_types", {}).items():
        has = node.get("resources", {})
        if not (places := has.get(DECODE, 0)):
            continue
        text = f"{name} holds {counted(places, 'decode actor')} (data.reader ray)"
        if places > has.get("CPU", 0):
            text = f"{name} has {places:g} of the resource {DECODE} and {has.get('CPU', 0):g} CPU"
            advice = f"a decode actor takes one of each: lower {DECODE}"
            yield Finding("decoding", text, "FAIL", advice)
        else:
            yield Finding("decoding", text)


def _costs(config: Tree) -> Iterator[Finding]:
    for name, node in config.get("available_node_types", {}).items():
        price = str(node.get("labels", {}).get("usd-per-hour", "unknown"))
        is_head = name == config.get("head_node_type")
        low = 1 if is_head else node.get("min_workers", 0)
        high = 1 if is_head else node.get("max_workers", config.get("max_workers", 0))
        try:
            text = f"{low * float(price):.2f} to {high * float(price):.2f} USD an hour, as stated"
        except ValueError:
            text = f"unknown; {low} to {counted(high, 'machine')}"
        yield Finding(f"cost of {name}", text)
