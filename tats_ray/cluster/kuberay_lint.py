"""Checks of a KubeRay manifest, from its structure alone: no Kubernetes is contacted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tats_ray.cluster.findings import Finding

Tree = Mapping[str, Any]


def lint_manifest(config: Tree) -> Iterator[Finding]:
    """Findings about a RayCluster, or the one inside a RayJob."""
    kind = config.get("kind")
    if config.get("apiVersion") != "ray.io/v1" or kind not in ("RayCluster", "RayJob"):
        text = f"{config.get('apiVersion')} {kind}"
        yield Finding("kind", text, "FAIL", "use a ray.io/v1 RayCluster or RayJob")
        return
    yield Finding("kind", f"{kind} {config.get('metadata', {}).get('name', '')}")
    spec = config.get("spec", {})
    if kind == "RayJob":
        if not spec.get("entrypoint"):
            yield Finding("entrypoint", "missing", "FAIL", "spec.entrypoint: tats pretrain ...")
        spec = spec.get("rayClusterSpec", {})
    groups = [spec.get("headGroupSpec", {}), *spec.get("workerGroupSpecs", [])]
    pods = [group.get("template", {}).get("spec", {}) for group in groups]
    yield from _images(pods)
    yield from _sizes(pods)
    yield from _shared(pods)
    if (spec.get("authOptions") or {}).get("mode") != "token":
        advice = "authOptions: {mode: token} (KubeRay 1.5.1, Ray 2.52 or newer)"
        yield Finding("auth token", "off: anyone in the cluster can run code", "FAIL", advice)
    else:
        version = spec.get("rayVersion") or "missing"
        yield Finding("auth token", f"on, Ray {version}", "ok" if version != "missing" else "FAIL")
    service = spec.get("headGroupSpec", {}).get("serviceType", "ClusterIP")
    if service != "ClusterIP":
        advice = "serviceType: ClusterIP, reached by kubectl port-forward"
        yield Finding("service", f"{service} exposes the job server", "FAIL", advice)


def _images(pods: list[Tree]) -> Iterator[Finding]:
    images = {c.get("image", "") for pod in pods for c in pod.get("containers", [])}
    plain = {re.sub(r"-(cpu|gpu|cu\d+)$", "", image) for image in images}
    if len(plain) == 1 and "" not in plain:
        yield Finding("image", f"the same everywhere: {plain.pop()}")
    else:
        text = ", ".join(sorted(plain)) or "none"
        yield Finding(
            "image",
            f"differ: {text}",
            "FAIL",
            "use one image, so that Ray, Python and torch are the same",
        )


def _sizes(pods: list[Tree]) -> Iterator[Finding]:
    for pod in pods:
        for container in pod.get("containers", []):
            size = container.get("resources", {})
            if not size.get("limits") or size.get("limits") != size.get("requests"):
                text = f"{container.get('name')}: limits {size.get('limits')}"
                advice = (
                    "set requests equal to limits: Ray counts the limits, Kubernetes the requests"
                )
                yield Finding("resources", text, "FAIL", advice)


def _shared(pods: list[Tree]) -> Iterator[Finding]:
    paths = [
        {m.get("mountPath") for c in pod.get("containers", []) for m in c.get("volumeMounts", [])}
        for pod in pods
    ]
    shared = set.intersection(*paths) - {"/dev/shm"} if paths else set()
    if shared:
        yield Finding("storage", f"on every pod: {', '.join(sorted(shared))}")
    else:
        advice = "mount one ReadWriteMany volume at the same path on head and workers"
        yield Finding("storage", "no folder that all pods share", "FAIL", advice)
    if not all("/dev/shm" in path for path in paths):
        advice = "mount an emptyDir with medium: Memory at /dev/shm; Kubernetes gives 64 MB"
        yield Finding("shared memory", "too small for Ray's object store", "note", advice)
