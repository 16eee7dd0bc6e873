"""The cluster file against Ray's own schema: no cloud account is needed to see a typo."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tats_ray.config.load import load_config

ROOT = Path(__file__).parents[1]
FILE = ROOT / "cluster.yaml"


@pytest.fixture(scope="module")
def validate() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What `ray up` does to a cluster file before it talks to the cloud."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.autoscaler._private.util import prepare_config, validate_config

    def both(config: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
        return prepared

    return both


@pytest.fixture
def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


Validate = Callable[[dict[str, Any]], dict[str, Any]]


def test_cluster_file_is_what_ray_expects(validate: Validate, cluster: dict[str, Any]) -> None:
    prepared = validate(cluster)
    assert prepared["available_node_types"]["gpu"]["min_workers"] == 1
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    "path",
    ["max_workerz", "available_node_types/gpu/min_worker", "docker/head_imag"],
)
def test_typo_is_refused(validate: Validate, cluster: dict[str, Any], path: str) -> None:
    from jsonschema import ValidationError

    *branches, name = path.split("/")
    node = cluster
    for branch in branches:
        node = node[branch]
    node[name] = 1
    with pytest.raises(ValidationError, match=name):
        validate(cluster)


def test_head_that_is_no_node_type_is_refused(validate: Validate, cluster: dict[str, Any]) -> None:
    cluster["head_node_type"] = "haed"
    with pytest.raises(ValueError, match=r"head_node_type|haed"):
        validate(cluster)


def test_paper_run_fits_the_workers_that_are_kept(cluster: dict[str, Any]) -> None:
    kept = cluster["available_node_types"]["gpu"]
    wants = load_config(ROOT / "tune_configs" / "ucf101_tats.yaml").cluster
    num_kept = kept["min_workers"]
    assert wants.num_workers * wants.cpus_per_worker <= num_kept * kept["resources"]["CPU"]
    assert wants.num_workers + wants.policy_gpus <= num_kept * kept["resources"]["GPU"]


def test_versions_are_those_of_the_lock(cluster: dict[str, Any]) -> None:
    ray = next(
        line.partition("==")[2]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line.startswith("ray==")
    )
    for image in (cluster["docker"]["head_image"], cluster["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{ray}-py3"), image
    assert (ROOT / cluster["file_mounts"]["~/requirements.lock"]).is_file()


def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_its_machine(
    cluster: dict[str, Any],
) -> None:
    for kind in ("head", "worker"):
        start = cluster[f"{kind}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in start
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]
    # Without a group of one's own, Ray makes one that opens SSH to everybody.
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
