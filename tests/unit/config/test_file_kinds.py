"""A file of another kind is named for what it is, with the command that takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tats_ray.cluster.cluster_lint import cluster_lint
from tats_ray.config.load import finetune_config, load_config
from tats_ray.config.sweep_schema import load_sweep
from tats_ray.core.errors import UsageError

REPO = Path(__file__).parents[3]
FILES = {
    "run": ("tune_configs/debug_cpu.yaml", "a configuration of pre-training", "tats pretrain"),
    "finetune": ("tune_configs/finetune_demo.yaml", "a configuration of fine-tuning", "finetune"),
    "sweep": ("tune_configs/demo_table2.yaml", "a sweep", "tats tune"),
    "cluster": ("cluster/gcp.yaml", "a Ray cluster file", "ray up"),
    "manifest": ("cluster/kuberay/rayjob.yaml", "a Kubernetes manifest", "kubectl apply -f"),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "run": load_config,
    "finetune": finetune_config,
    "sweep": load_sweep,
    "cluster": cluster_lint,
}


@pytest.mark.parametrize("given", FILES)
@pytest.mark.parametrize("wanted", READERS)
def test_each_reader_tells_the_files_of_the_others_apart(wanted: str, given: str) -> None:
    file, words, command = FILES[given]
    path = REPO / file
    if wanted == given or (wanted == "cluster" and given == "manifest"):
        return
    with pytest.raises(UsageError) as refused:
        READERS[wanted](path)
    said = str(refused.value)
    assert said.startswith(f"{path} is {words}, not ")
    assert command in said
    assert str(path) in said.rpartition(";")[2]


@pytest.mark.parametrize("path", sorted((REPO / "tune_configs").glob("*.yaml")), ids=str)
def test_every_file_of_ours_is_taken_for_what_it_is(path: Path) -> None:
    kind = path.name.split("_")[0]
    reader = {"finetune": "finetune", "sweep": "sweep", "demo": "sweep"}.get(kind, "run")
    READERS[reader](path)


def test_one_field_of_another_kind_is_a_mistake_in_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("loop: {epochs: 2}\naugment: {flip: 0.5}\n")
    with pytest.raises(UsageError, match="unknown field augment"):
        load_config(path)
