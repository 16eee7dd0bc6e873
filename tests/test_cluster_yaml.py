"""The cluster files against Ray's own schema, and lint: a typo shows without a cloud account."""

from __future__ import annotations

import copy
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tats_ray.cluster.cluster_lint import lint_ray_up, pins
from tats_ray.cluster.findings import Finding
from tats_ray.cluster.kuberay_lint import lint_manifest
from tats_ray.config.load import load_config
from tats_ray.runtime.resources.request import ResourceRequest

ROOT = Path(__file__).parents[1]
CLOUDS = ("cluster.yaml", "cluster/gcp.yaml")
RAY_UP = (*CLOUDS, "cluster/onprem.yaml")
MANIFESTS = ("cluster/kuberay/raycluster.yaml", "cluster/kuberay/rayjob.yaml")
LOCK = pins(ROOT / "requirements.lock")

Tree = dict[str, Any]


def read(name: str) -> Tree:
    return dict(yaml.safe_load((ROOT / name).read_text()))


def validate(config: Tree) -> Tree:
    """What `ray up` does to a cluster file before it talks to the cloud."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: Tree = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def change(config: Tree, path: str, value: Any) -> Tree:
    """The same with one entry set, or left out for None."""
    config = copy.deepcopy(config)
    *branches, name = path.split("/")
    node = config
    for branch in branches:
        node = node[int(branch) if isinstance(node, list) else branch]
    if value is None:
        del node[name]
    else:
        node[name] = value
    return config


def failures(findings: Any) -> list[Finding]:
    """Without what a fresh checkout lacks: the token, and the wheel."""
    return [f for f in findings if f.verdict == "FAIL" and "is missing here" not in f.says]


@pytest.mark.parametrize("name", RAY_UP)
def test_cluster_file_is_what_ray_expects(name: str) -> None:
    prepared = validate(read(name))
    head = prepared["available_node_types"][prepared["head_node_type"]]
    if name in CLOUDS:
        assert head["resources"]["CPU"] == 0
        assert head["max_workers"] == 0


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(
    "path", ["max_workerz", "available_node_types/gpu/min_worker", "docker/head_imag"]
)
def test_typo_is_refused(name: str, path: str) -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError, match=path.split("/")[-1]):
        validate(change(read(name), path, 1))


def test_head_that_is_no_node_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head_node_type|haed"):
        validate(change(read("cluster.yaml"), "head_node_type", "haed"))


@pytest.mark.parametrize("name", CLOUDS)
def test_paper_run_fits_what_the_cluster_may_grow_to(name: str) -> None:
    kept = read(name)["available_node_types"]["gpu_spot"]
    config = load_config(ROOT / "tune_configs" / "ucf101_tats.yaml")
    most = kept["max_workers"]
    wants = ResourceRequest.of(config).total
    assert wants["GPU"] >= config.cluster.num_workers
    for kind, amount in wants.items():
        assert amount <= most * kept["resources"][kind]


@pytest.mark.parametrize("name", CLOUDS)
def test_decode_actors_of_a_run_find_places_that_are_meant_for_them(name: str) -> None:
    (node,) = [n for n in read(name)["available_node_types"].values() if "decode" in n["resources"]]
    (finding,) = [f for f in lint_ray_up(read(name), ROOT / name) if f.what == "decoding"]
    assert finding.says == "decode holds 32 decode actors (data.reader ray)"
    config = load_config(ROOT / "tune_configs" / "ucf101_tats.yaml")
    decoders = ResourceRequest.of(replace(config, data=replace(config.data, reader="ray"))).decode
    assert 0 < decoders.count <= node["max_workers"] * node["resources"]["decode"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_decode_pods_offer_as_many_places_as_cpus(name: str) -> None:
    spec = read(name)["spec"]
    groups = spec.get("rayClusterSpec", spec)["workerGroupSpecs"]
    (group,) = [group for group in groups if group["groupName"] == "decode"]
    # Ray gets the words through a shell, which takes one pair of quotes away.
    (words,) = shlex.split(group["rayStartParams"]["resources"])
    cpus = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    assert json.loads(words) == {"decode": int(cpus)}


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_machines_are_preferred_and_the_fallback_is_the_same_machine(name: str) -> None:
    types = read(name)["available_node_types"]
    spot, fallback = types["gpu_spot"], types["gpu"]
    assert spot["priority"] > fallback["priority"]
    assert spot["resources"] == fallback["resources"]
    market = {"InstanceMarketOptions", "scheduling"}
    machine, other = (
        {k: v for k, v in t["node_config"].items() if k not in market} for t in (spot, fallback)
    )
    assert machine == other
    assert "spot" in str(spot["node_config"]) or "preemptible" in str(spot["node_config"])
    assert "spot" not in str(fallback["node_config"])
    assert "preemptible" not in str(fallback["node_config"])


@pytest.mark.parametrize("name", CLOUDS)
def test_versions_are_those_of_the_lock(name: str) -> None:
    config = read(name)
    for image in (config["docker"]["head_image"], config["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{LOCK['ray']}-py3"), image
    assert (ROOT / config["file_mounts"]["~/requirements.lock"]).is_file()


def test_the_image_and_the_manifests_have_the_ray_of_the_lock() -> None:
    base = next(
        line for line in (ROOT / "cluster" / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM")
    )  # fmt: skip
    python = read("cluster.yaml")["docker"]["head_image"].removesuffix("-cpu")
    assert base == f"FROM {python}-${{KIND}}"
    cluster, job = (read(name)["spec"] for name in MANIFESTS)
    assert cluster["rayVersion"] == LOCK["ray"]
    assert job["rayClusterSpec"] == cluster


@pytest.mark.parametrize("name", RAY_UP)
def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_its_machine(name: str) -> None:
    config = read(name)
    for kind in ("head", "worker"):
        assert "RAY_AUTH_MODE=token" in config[f"{kind}_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "RAY_JOB_STOP_WAIT_TIME_S=300" in config["head_start_ray_commands"][-1]
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    assert "tats doctor --node" in config["setup_commands"][-1]
    # Without a group or network of one's own, SSH is open to everybody.
    own = {"aws": "SecurityGroupIds", "gcp": "networkInterfaces"}.get(config["provider"]["type"])
    for node in config.get("available_node_types", {}).values():
        assert own is None or node["node_config"][own]


@pytest.mark.parametrize("name", RAY_UP)
def test_lint_passes_what_is_shipped(name: str) -> None:
    findings = list(lint_ray_up(read(name), ROOT / name))
    assert failures(findings) == []
    assert {"schema", "self-check", "dashboard", "firewall", "versions"} <= {
        f.what for f in findings
    }


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("max_workerz", 1, "schema"),
        ("provider/type", "awz", "schema"),
        ("docker/worker_image", "rayproject/ray:2.60.0-py312-gpu", "image"),
        ("docker/image", "rayproject/ray:2.59.0-py311", "versions"),
        ("setup_commands", ["pip install torch"], "self-check"),
        ("worker_start_ray_commands", ["ray start --address=$RAY_HEAD_IP:6379"], "auth token"),
        ("head_start_ray_commands", ["RAY_AUTH_MODE=token ray start --head"], "dashboard"),
        ("available_node_types/gpu/node_config/SecurityGroupIds", None, "firewall"),
        ("available_node_types/decode/resources", {"CPU": 8, "decode": 32}, "decoding"),
        ("provider/security_group", {"IpPermissions": [{"Cidr": "0.0.0.0/0"}]}, "ports"),
    ],
)
def test_lint_names_what_would_not_work(path: str, value: Any, what: str) -> None:
    wrong = change(read("cluster.yaml"), path, value)
    assert what in {f.what for f in failures(lint_ray_up(wrong, ROOT / "cluster.yaml"))}


@pytest.mark.parametrize("name", MANIFESTS)
def test_lint_passes_the_manifests(name: str) -> None:
    findings = list(lint_manifest(read(name)))
    assert failures(findings) == []
    assert {"image", "storage", "auth token"} <= {f.what for f in findings}


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("kind", "Deployment", "kind"),
        ("spec/authOptions", None, "auth token"),
        ("spec/headGroupSpec/serviceType", "LoadBalancer", "service"),
        ("spec/workerGroupSpecs/0/template/spec/containers/0/image", "other:1", "image"),
        (
            "spec/workerGroupSpecs/0/template/spec/containers/0/resources/limits",
            {"cpu": "1"},
            "resources",
        ),
        ("spec/workerGroupSpecs/0/template/spec/containers/0/volumeMounts", [], "storage"),
    ],
)
def test_lint_names_what_is_wrong_in_a_manifest(path: str, value: Any, what: str) -> None:
    wrong = change(read(MANIFESTS[0]), path, value)
    assert what in {f.what for f in failures(lint_manifest(wrong))}


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_volume_that_a_pod_mounts_exists(name: str) -> None:
    spec = read(name)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
