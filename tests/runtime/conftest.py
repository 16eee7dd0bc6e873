"""One private Ray for all tests of the runtime, and a small set of videos."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tats_ray.data.synthetic import SyntheticSet, synthesize


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=18, num_val=4, num_frames=12, size=48, workers=1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Two logical CPUs, no token: a private test cluster on the loopback."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    from tats_ray.runtime.driver.ray_cluster import cluster_settings

    cluster_settings()
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture
def nothing_held(cluster: None) -> Iterator[None]:
    """A test that keeps a part of a CPU would let the next run wait for it in vain: it fails."""
    yield
    import ray

    deadline = time.monotonic() + 30
    while (free := ray.available_resources().get("CPU", 0.0)) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert free == 2, f"{2 - free:g} CPU of the test cluster is still reserved"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder
