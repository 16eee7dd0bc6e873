"""One private Ray for all tests of the runtime, and a small set of videos."""

from __future__ import annotations

import os
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
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder
