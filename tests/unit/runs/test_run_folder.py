"""How runs go on: from anywhere, for more epochs, from other weights, or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import dump_config, load_config, parse_config, read_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.core import devices
from tats_ray.core.folder_lock import LOCK_FILE
from tats_ray.core.types import Position
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import build_mae, build_policy, token_grid
from tats_ray.runs import carry_out, forecast, pretrain_run
from tats_ray.runs.run_record import record_end
from tats_ray.runs.step_timing import StepTiming
from tats_ray.runtime.driver.fit import Outcome
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner
from tests.commands import refusal, tats

STEPS = 4
"""Of an epoch: 8 videos in batches of 2."""
CONFIG = """
data: {{train_list: {train}, num_frames: 4, image_size: 16, stride: 1, num_workers: 0}}
model: {{size: tiny, patch: 8, depth: 1, decoder_depth: 1}}
sampler: {{mask_ratio: 0.5}}
loop: {{epochs: 6, mae_only_epochs: 1}}
optim: {{batch_size: 2, base_lr: 0.128, min_lr: 0, warmup_epochs: 1}}
checkpoint: {{keep_last: 9}}
cluster: {{threads: 1}}
"""


def save_at(folder: Path, config: RunConfig, epoch: int) -> None:
    """A checkpoint as a run leaves it, its weights made from the seed."""
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=config.seed)
    learner = MAELearner(mae, config.optim, steps_per_epoch=STEPS, total_steps=1, global_batch=2)
    learner.step = epoch * STEPS
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    state = None
    if is_learned(policy):
        algorithm = config.algorithm.build(policy)
        state = PolicyLearner(policy, algorithm, seed=config.seed).state_dict()
    at = Position(step=epoch * STEPS, epoch=epoch)
    found = checkpoints.Checkpoint(at, learner.state_dict(), state, dump_config(config))
    checkpoints.save(folder, found, keep_last=9)


class Started:
    """Stands for everything that a run starts; a run in it goes to its last epoch."""

    def __init__(self) -> None:
        self.configs: list[RunConfig] = []

    def run(self, config: RunConfig, folder: Path, *_: Any, **__: Any) -> Outcome:
        self.configs.append(config)
        self.before = checkpoints.newest_reached(folder)
        save_at(folder, config, config.loop.epochs)
        record_end(folder, "finished")
        return Outcome(True, "", config.loop.epochs * STEPS)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """A working directory with videos and a configuration, and nothing that really starts."""
    found = Started()
    monkeypatch.setattr(carry_out.launch, "run", found.run)
    monkeypatch.setattr(pretrain_run, "write_run_report", report)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in range(8):
        (tmp_path / "data" / f"{name}.mp4").touch()
    write_list(tmp_path / "data" / "train.csv", range(8))
    (tmp_path / "small.yaml").write_text(CONFIG.format(train="data/train.csv"))
    return found


def report(config: RunConfig, folder: Path, videos: Any) -> Path:
    """Stands for a report; its text is the length of the run."""
    assert (folder / LOCK_FILE).exists()
    (folder / "report.html").write_text(str(config.loop.epochs))
    return folder / "report.html"


def write_list(path: Path, names: Any, label: Callable[[int], int] = lambda name: 0) -> None:
    path.write_text("".join(f"{name}.mp4\t{label(name)}\n" for name in names))


def output(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    tats(*words)
    return capsys.readouterr().out


def test_run_that_is_complete_says_so_and_how_to_go_on_and_starts_nothing(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    for given in ("small.yaml", "runs/small/config.yaml", "runs/small"):
        said = output(capsys, "pretrain", given, "--resume")
        first, longer, anew = said.splitlines()
        assert first.endswith(
            "runs/small is complete: 6 epochs, 24 steps, last checkpoint "
            "runs/small/checkpoints/step_00000024"
        )
        assert longer.endswith("tats pretrain runs/small --extend --loop.epochs 12")
        assert anew.endswith("tats pretrain runs/small --init runs/small --name NAME")
    assert len(started.configs) == 1
    weights = Path("runs/small/checkpoints/step_00000024/mae.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])  # damaged: the run must look at the one before
    tats("pretrain", "small.yaml", "--resume")
    assert len(started.configs) == 2


def test_report_that_a_complete_run_lacks_is_written_and_named(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    tats("pretrain", "small.yaml")
    config = load_config("small.yaml", ["--loop.epochs", "9"])

    def fail(*_: Any) -> Path:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_run, "write_run_report", fail)
        with pytest.raises(OSError, match="disk full"):
            pretrain_run.pretrain(config, extend=True)
    file, record = Path("runs/small/report.html"), Path("runs/small/run.json")
    assert (file.read_text(), json.loads(record.read_text())["ended"]["state"]) == ("6", "failed")
    assert pretrain_run.pretrain(config, resume=True).report == file
    assert (file.read_text(), json.loads(record.read_text())["ended"]["state"]) == ("9", "finished")
    file.write_text("read by somebody")
    assert pretrain_run.pretrain(config, resume=True).report == file
    assert file.read_text() == "read by somebody"


def test_dry_run_of_a_run_that_goes_on_is_of_what_is_left(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pace = StepTiming(mae_step_s=1, joint_step_s=10, clips_s=0, feature_s=0)
    monkeypatch.setattr(forecast, "time_steps", lambda *_: pace)
    tats("pretrain", "small.yaml")
    going_on = ["pretrain", "small.yaml", "--dry-run"]
    said = output(capsys, *going_on, "--resume")
    assert "is complete: 6 epochs" in said
    assert "time  " not in said
    said = output(capsys, *going_on, "--extend", "--loop.epochs", "9")
    assert "time  about 2m00s of training" in said  # 3 epochs of 4 steps
    part = ["--name", "part", "--loop.mae_only_epochs", "3"]
    save_at(Path("runs/part"), load_config("small.yaml", part), 2)
    assert "time  about 2m04s of" in output(capsys, *going_on, *part, "--resume")
    assert "time  about 2m12s of" in output(capsys, *going_on, *part[2:], "--name", "new")


def test_other_settings_are_refused_with_both_ways_to_go_on(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    said = refusal(capsys, "pretrain", "small.yaml", "--resume", "--loop.epochs", "8")
    assert (
        "loop.epochs 6 -> 8; resume with the old ones, train the run longer with --extend" in said
    )
    assert "a new run from its weights with --init runs/small and another --name" in said


def test_extension_says_what_becomes_of_the_rate_and_can_be_resumed(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    said = output(capsys, "pretrain", "runs/small", "--extend", "--loop.epochs", "11")
    assert re.search(
        # 1e-3 at the top; 5 of 10 epochs of the cosine are behind it.
        r"extended  6 to 11 epochs: the warm-up stays, .* at step 24 the learning rate jumps from "
        r"0 to 0\.0005\n",
        said,
    )
    assert started.configs[-1].loop.epochs == 11
    # Killed before its next checkpoint: the folder knows how long the run is to be.
    shutil.rmtree("runs/small/checkpoints/step_00000044")
    Path("runs/small/checkpoints/latest").write_text("step_00000024\n")
    tats("pretrain", "runs/small", "--resume")
    assert started.configs[-1].loop.epochs == 11
    assert "11 epochs, 44 steps" in output(capsys, "pretrain", "runs/small", "--resume")


def test_length_of_an_extension_that_has_not_begun_can_be_corrected(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    extend = ["pretrain", "runs/small", "--extend", "--loop.epochs"]
    with monkeypatch.context() as patch:
        patch.setattr(carry_out.launch, "run", lambda *_, **__: Outcome(False, "stopped", 24))
        tats(*extend, "4000")
    assert "extended  6 to 40 epochs" in output(capsys, *extend, "40")
    assert "more than the 40 epochs" in refusal(capsys, *extend, "9")


@pytest.mark.parametrize("epochs", [[], ["--loop.epochs", "5"]])
def test_extension_needs_more_epochs(
    started: Started, capsys: pytest.CaptureFixture[str], epochs: list[str]
) -> None:
    tats("pretrain", "small.yaml")
    said = refusal(capsys, "pretrain", "small.yaml", "--extend", *epochs)
    assert "--extend needs more than the 6 epochs that runs/small has" in said
    said = refusal(capsys, "pretrain", "small.yaml", "--extend", "--optim.base_lr", "1")
    assert "--extend needs more" in said
    flags = ["--loop.epochs", "7", "--optim.base_lr", "1"]
    assert "optim.base_lr 0.128 -> 1.0" in refusal(
        capsys, "pretrain", "small.yaml", "--extend", *flags
    )


def test_extension_needs_a_run(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run to resume" in refusal(capsys, "pretrain", "small.yaml", "--extend")


def test_new_run_starts_from_the_weights_of_another_and_from_nothing_else(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml", "--seed", "5")
    words = ["pretrain", "small.yaml", "--init", "runs/small", "--name", "new", "--resume"]
    assert "no run to resume" in refusal(capsys, *words)
    said = output(capsys, *words[:-1], "--algorithm.lr", "1e-3")
    assert "weights  tats_ray run small, step 24; its sampler too" in said
    assert started.before is not None
    assert (started.before.position, started.before.optimizer_steps) == (Position(), 0)
    old, new = (
        checkpoints.load(Path("runs") / folder)
        for folder in ("small", "new/checkpoints/step_00000000")
    )
    assert new.mae["optimizer"]["state"] == {}
    for one, other in ((old.mae, new.mae), (old.policy, new.policy)):
        assert one is not None
        assert other is not None
        for name, weight in one["network"].items():
            assert torch.equal(other["network"][name], weight), name
    fresh = build_mae(
        load_config("small.yaml").model, token_grid(*_parts("small.yaml")), seed=0
    ).state_dict()
    assert not torch.equal(fresh["mask_token"], new.mae["network"]["mask_token"])
    assert started.configs[-1].init == "runs/small"
    shutil.rmtree("runs/small")  # of no more use
    assert "is complete" in output(capsys, "pretrain", "runs/new", "--resume")


def test_run_that_failed_with_its_first_weights_alone_can_be_started_again_and_resumed(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml", "--seed", "5")
    start = ["pretrain", "small.yaml", "--init", "runs/small", "--name", "new"]

    def fail(*_: Any, **__: Any) -> Outcome:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(carry_out.launch, "run", fail)
        with pytest.raises(ConnectionError):
            tats(*start, "--cluster.address", "wrong:6379")
        assert "already holds a run" in refusal(capsys, *start[:2], "--name", "new")
        # Once more, with other settings and videos; the old weights are gone.
        write_list(Path("data/fewer.csv"), range(6))
        with pytest.raises(ConnectionError):
            tats(*start, "--optim.weight_decay", "0.1", "--data.train_list", "data/fewer.csv")
    start += ["--optim.weight_decay", "0.1", "--data.train_list", "data/fewer.csv"]
    first = checkpoints.load("runs/small").mae["network"]
    shutil.rmtree("runs/small")
    tats(*start, "--resume")
    assert started.before is not None
    assert started.before.position == Position()
    new = checkpoints.load("runs/new/checkpoints/step_00000000").mae["network"]
    assert all(torch.equal(new[name], weight) for name, weight in first.items())
    assert "already holds a run (step_00000024)" in refusal(capsys, *start)


def test_run_with_first_weights_is_resumed_in_another_folder_with_the_same_words(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tats("pretrain", "small.yaml", "--seed", "5")
    start = ["pretrain", "small.yaml", "--init", "runs/small", "--name", "new"]
    start += ["--checkpoint.folder", str(tmp_path / "kept"), "--resume"]
    tats(*start[:-1])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("data", "runs"):
        shutil.copytree(name, copy / name)
    shutil.copy("small.yaml", copy)
    monkeypatch.chdir(copy)
    assert "is complete" in output(capsys, *start)
    assert "init " in refusal(capsys, *start, "--init", "runs/other")


def test_new_run_starts_from_the_file_of_another_project(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml", "--seed", "5")
    tats("ckpt", "convert", "runs/small", "official.pth")
    said = output(capsys, "pretrain", "small.yaml", "--init", "official.pth", "--name", "new")
    assert re.search(r"weights  official\.pth, .*no sampler that learns, so the run's starts", said)
    new = checkpoints.load("runs/new/checkpoints/step_00000000")
    assert new.policy is None
    for name, weight in checkpoints.load("runs/small").mae["network"].items():
        assert torch.equal(new.mae["network"][name], weight), name


def _parts(path: str) -> tuple[Any, Any]:
    config = load_config(path)
    return config.data, config.model


def test_weights_of_a_run_with_another_sampler_come_without_it(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    start = ["pretrain", "small.yaml", "--init", "runs/small"]
    said = output(capsys, *start, "--name", "a", "--sampler.name", "adamae")
    assert "its sampler does not fit, so the run's starts anew" in said
    assert checkpoints.load("runs/a/checkpoints/step_00000000").policy is None
    said = output(capsys, *start, "--name", "b", "--sampler.name", "tube")
    assert "weights  tats_ray run small, step 24\n" in said


def test_weights_of_another_network_are_refused_with_the_fields_that_differ(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    flags = ["--model.depth", "2", "--model.pos_embed", "sincos_3d", "--name", "new"]
    said = refusal(capsys, "pretrain", "small.yaml", "--init", "runs/small", *flags)
    assert "another network: model.depth 1 -> 2, model.pos_embed sincos_1d -> sincos_3d;" in said
    assert not Path("runs/new").exists()
    said = refusal(capsys, "pretrain", "small.yaml", "--init", "nowhere", "--name", "new")
    assert "nowhere" in said


def test_run_folder_is_resumed_from_elsewhere_and_after_a_move(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tats("pretrain", "small.yaml")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move("runs/small", elsewhere / "moved")
    monkeypatch.chdir(elsewhere)
    tats("pretrain", "moved", "--extend", "--loop.epochs", "7")
    written = parse_config(read_yaml("moved/config.yaml"))
    assert written.data.train_list == str(tmp_path / "data" / "train.csv")
    assert written.checkpoint.folder == str(elsewhere)
    monkeypatch.chdir("/")
    tats("pretrain", elsewhere / "moved" / "config.yaml", "--extend", "--loop.epochs", "8")
    assert [config.loop.epochs for config in started.configs] == [6, 7, 8]


def test_list_that_is_not_found_says_where_it_was_looked_for(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path / "data")
    said = refusal(capsys, "pretrain", tmp_path / "small.yaml")
    assert (
        f"data/train.csv: the list cannot be read (No such file or directory in {tmp_path}" in said
    )


def test_videos_may_move_but_not_change(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    shutil.copytree("data", "new")
    longer = ["pretrain", "small.yaml", "--extend", "--loop.epochs"]
    tats(*longer, "7", "--data.train_list", "new/train.csv")
    (tmp_path / "other.csv").write_text(
        "".join(f"{tmp_path}/new/{name}.mp4 0\n" for name in range(8))
    )
    tats(*longer, "8", "--data.train_list", "other.csv")
    write_list(Path("list.csv"), range(8))
    tats(*longer, "9", "--data.train_list", "list.csv", "--data.root", "data")
    write_list(Path("data/labels.csv"), range(8), label=lambda name: int(name > 5))
    said = refusal(capsys, *longer, "10", "--data.train_list", "data/labels.csv")
    assert "data/labels.csv differs from the list that the run began with in 2 of 8 entries" in said
    assert "first 6.mp4 0 -> 6.mp4 1; resume with the same videos" in said
    write_list(Path("data/fewer.csv"), range(7))
    said = refusal(capsys, *longer, "10", "--data.train_list", "data/fewer.csv")
    assert "in 1 of 8 entries, first 7.mp4 0 -> none" in said


def test_run_may_go_on_from_a_cache_of_its_videos_and_with_another_reader(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    tats("data", "cache", "data/train.csv", "cache", "--short-side", "16")
    longer = ["pretrain", "small.yaml", "--extend", "--loop.epochs"]
    tats(*longer, "7", "--data.cache", "cache")
    tats(*longer, "8")
    tats(*longer, "9", "--data.reader", "ray", "--data.num_workers", "1")
    assert [config.data.cache for config in started.configs] == ["", "cache", "", ""]
    write_list(Path("data/fewer.csv"), range(7))
    other = ["--data.train_list", "data/fewer.csv", "--data.cache", "cache"]
    capsys.readouterr()
    assert "in 1 of 8 entries" in refusal(capsys, *longer, "10", *other)
    Path("runs/small/videos.json").unlink()  # as version 0.1 left it: who knows whether they differ
    assert "data.cache " in refusal(capsys, *longer, "10", "--data.cache", "cache")


def test_run_of_before_there_were_records_still_goes_by_the_names_of_its_lists(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("pretrain", "small.yaml")
    for name in ("run.json", "videos.json"):
        Path("runs/small", name).unlink()
    Path("runs/small/config.yaml").write_text(Path("small.yaml").read_text() + "name: small\n")
    shutil.copy("data/train.csv", "data/copy.csv")
    resume = ["pretrain", "runs/small/config.yaml", "--resume"]
    assert "data.train_list 'data/train.csv' -> 'data/copy.csv'" in refusal(
        capsys, *resume, "--data.train_list", "data/copy.csv"
    )
    assert "is complete" in output(capsys, *resume)


def test_folder_records_how_the_run_ended(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    tats("pretrain", "small.yaml")
    assert json.loads(Path("runs/small/run.json").read_text())["ended"]["state"] == "finished"

    def fail(*_: Any, **__: Any) -> Outcome:
        raise RuntimeError("no luck")

    monkeypatch.setattr(carry_out.launch, "run", fail)
    with pytest.raises(RuntimeError):
        tats("pretrain", "small.yaml", "--name", "other")
    ended = json.loads(Path("runs/other/run.json").read_text())["ended"]
    assert (ended["state"], ended["why"]) == ("failed", "no luck")


def test_run_goes_on_with_the_precision_that_auto_came_to_at_its_start(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda device: True)
    auto = ("pretrain", "small.yaml", "--model.size", "small", "--loop.precision", "auto")
    tats(*auto)
    tats(*auto, "--extend", "--loop.epochs", "8")
    assert [config.loop.precision for config in started.configs] == ["bfloat16"] * 2
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda device: False)
    said = refusal(capsys, *auto, "--extend", "--loop.epochs", "9")
    assert "loop.precision 'bfloat16' -> 'float32'" in said
