"""Fine-tuning in real Ray processes, against the same parts in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.fine_tuned import PART
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import dump_config, parse_config, parse_finetune
from tats_ray.core.errors import UsageError
from tats_ray.core.types import Position
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.models.zoo import build_mae, token_grid
from tats_ray.runs.finetune_plan import make_finetune_plan
from tats_ray.runs.finetune_run import finetune
from tats_ray.runtime.driver import launch
from tats_ray.runtime.driver.watch import RunFailedError
from tats_ray.runtime.resources.placement import Placement
from tats_ray.training.finetune_build import finetune_batches
from tats_ray.training.finetune_loop import ClassifierLearner, FinetuneLoop
from tats_ray.training.finetune_state import first_weights
from tats_ray.training.mae_learner import MAELearner
from tats_ray.view.tracking import read_metrics
from tests.marks import IN_CLUSTER

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose encoder has learned nothing, which is as good to start from."""
    config = parse_config(
        {
            "name": "pretrained",
            "data": {"num_frames": 4, "image_size": 32, "stride": 1},
            "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
        }
    )
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=3)
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    folder = tmp_path_factory.mktemp("pretrained")
    state = Checkpoint(Position(step=1), learner.state_dict(), None, dump_config(config))
    checkpoints.save(folder, state, keep_last=1)
    return folder


def small_config(run: Path, **branches: dict[str, Any]) -> FinetuneConfig:
    raw: dict[str, dict[str, Any]] = {
        "data": {"num_workers": 0},
        "optim": {"batch_size": 4, "epochs": 2, "base_lr": 0.3, "warmup_epochs": 1},
        "augment": {"rand_ops": 1},
        "eval": {"every_epochs": 1},
        "checkpoint": {"folder": str(run.parent), "every_epochs": 1, "keep_last": 9},
        "cluster": {"threads": 1, "timeout_s": 60},
        "log": {"every_steps": 1, "mode": "quiet"},
    }
    for branch, fields in branches.items():
        raw[branch] = {**raw.get(branch, {}), **fields}
    return parse_finetune({"name": run.name, **raw})


def weights(run: Path) -> Mapping[str, torch.Tensor]:
    found: Mapping[str, torch.Tensor] = checkpoints.load_parts(run).parts[PART]["network"]
    return found


class Quiet:
    def on_batch(self, *args: Any) -> None: ...

    def on_epoch(self, *args: Any) -> None: ...


@pytest.mark.long
def test_one_rank_does_what_the_recipe_does_in_one_process(
    pretrained: Path, videos: SyntheticSet, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "run")
    result = finetune(pretrained, videos.train_list.parent, config)
    assert result.outcome.is_finished
    plan = make_finetune_plan(pretrained, videos.train_list.parent, config)
    network = first_weights(plan.config, result.folder)
    found = checkpoints.load(pretrained).mae["network"]
    name = "encoder.blocks.0.mlp.fc1.weight"
    assert torch.equal(network.state_dict()[name], found[name])
    batches = finetune_batches(plan.config, read_lists(plan.config.data).train)
    learner = ClassifierLearner(network, plan.config, steps_per_epoch=batches.steps_per_epoch)
    FinetuneLoop(epochs=2, batches=batches, learner=learner, hooks=Quiet()).run()
    by_hand, by_ray = learner.network.state_dict(), weights(result.folder)
    assert [n for n in by_hand if not torch.equal(by_hand[n], by_ray[n])] == []
    measured = [r["val/top1"] for r in read_metrics(result.folder) if "val/top1" in r]
    assert len(measured) == 2
    assert result.top1 == measured[-1]


@pytest.mark.long
def test_two_ranks_that_stop_within_an_epoch_go_on_to_the_same_weights(
    pretrained: Path, videos: SyntheticSet, tmp_path: Path
) -> None:
    """From scratch, with copies of each video, and a moving average."""
    two = {
        "cluster": {"num_workers": 2, "threads": 1, "timeout_s": 60},
        "augment": {"repeats": 2, "rand_ops": 0},
        "optim": {"batch_size": 4, "epochs": 2, "base_lr": 0.3, "ema_decay": 0.9},
    }
    straight = small_config(tmp_path / "straight", **two)
    data = videos.train_list.parent
    whole = finetune(pretrained, data, straight)
    assert whole.outcome.step == 8  # 18 videos, 2 x 2 a step

    stopped = small_config(tmp_path / "stopped", **two)
    plan = make_finetune_plan(pretrained, data, stopped)
    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "start.safetensors").write_bytes((whole.folder / "start.safetensors").read_bytes())
    (folder / "config.yaml").write_text(dump_config(plan.config))
    outcome = stop_early(plan.config, folder, plan.placement)
    assert not outcome.is_finished
    assert outcome.step < 8
    again = finetune(pretrained, data, stopped, resume=True)
    assert again.outcome.is_finished
    for part in (PART, "average"):
        one = checkpoints.load_parts(whole.folder).parts[part]["network"]
        other = checkpoints.load_parts(again.folder).parts[part]["network"]
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    with pytest.raises(UsageError, match=r"other settings: optim\.base_lr 0\.3 -> 0\.1"):
        finetune(
            pretrained,
            data,
            small_config(folder, **{**two, "optim": {**two["optim"], "base_lr": 0.1}}),
            resume=True,
        )


def stop_early(config: FinetuneConfig, folder: Path, placement: Placement) -> Any:
    """As Ctrl-C does, but asked for before the first step."""
    whole = launch.start_peers

    def asked(config: FinetuneConfig, placement: Placement) -> Any:
        peers = whole(config, placement)
        peers.log.request_stop.remote()
        return peers

    launch.start_peers = asked
    try:
        return launch.run(config, folder, placement, on_event=lambda event: None)
    finally:
        launch.start_peers = whole


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run_with_its_clips_named(
    pretrained: Path, videos: SyntheticSet, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "run", optim={"base_lr": 1e30, "warmup_epochs": 0})
    with pytest.raises(RunFailedError, match=r"loss is (nan|inf) .*clips of rank 0 .*train"):
        finetune(pretrained, videos.train_list.parent, config)
    assert checkpoints.load_parts(tmp_path / "run").position.epoch == 0


@pytest.mark.long
def test_lists_are_found_from_the_drivers_folder(
    pretrained: Path, videos: SyntheticSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = videos.train_list.parent
    monkeypatch.chdir(data.parent)
    lists = {"train_list": f"{data.name}/train.csv", "val_list": f"{data.name}/val.csv"}
    result = finetune(pretrained, None, small_config(tmp_path / "run", data=lists))
    assert result.outcome.is_finished
