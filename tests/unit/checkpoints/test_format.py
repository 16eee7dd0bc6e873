"""Checkpoints: whole or not at all, safe to load, and clear about what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tats_ray.checkpoints import format as checkpoint
from tats_ray.checkpoints.format import Checkpoint, load, load_weights, save
from tats_ray.config.schema import LoopConfig
from tats_ray.core.errors import CheckpointError
from tats_ray.core.types import Position
from tests.full_disk import files_limited_to


def assert_same(left: Any, right: Any) -> None:
    """Nested containers are equal, tensors to the bit; tuples may have become lists."""
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


@pytest.fixture
def trained(small_run: Any) -> Checkpoint:
    """Both networks after a few steps."""
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0), batches_per_epoch=2)
    run.loop.run()
    found: Checkpoint = run.checkpoint()
    return found


def at_step(trained: Checkpoint, step: int) -> Checkpoint:
    return Checkpoint(Position(step=step), trained.mae, trained.policy, trained.config_yaml)


def test_loaded_checkpoint_equals_the_saved_one(tmp_path: Path, trained: Checkpoint) -> None:
    folder = save(tmp_path, trained, keep_last=2)
    assert folder == tmp_path / "checkpoints" / "step_00000002"
    found = load(tmp_path)
    assert found.position == trained.position
    assert found.position.policy_version == 2
    assert found.config_yaml == trained.config_yaml
    assert_same(dict(found.mae), dict(trained.mae))
    assert found.policy is not None
    assert trained.policy is not None
    assert_same(dict(found.policy), dict(trained.policy))


def test_run_without_a_learning_policy_has_none_in_its_checkpoint(
    tmp_path: Path, trained: Checkpoint
) -> None:
    save(tmp_path, Checkpoint(Position(), trained.mae, None, ""), keep_last=1)
    assert load(tmp_path).policy is None
    assert not list(tmp_path.rglob("policy*"))


def test_checkpoint_before_the_first_step_holds_empty_optimizers(
    tmp_path: Path, small_run: Any
) -> None:
    run = small_run(loop=LoopConfig(epochs=1))
    save(tmp_path, run.checkpoint(), keep_last=1)
    other = small_run(loop=LoopConfig(epochs=1))
    other.restore(load(tmp_path))
    assert other.learner.optimizer.state_dict()["state"] == {}


def test_checkpoint_is_made_of_formats_that_run_no_code(
    tmp_path: Path, trained: Checkpoint
) -> None:
    folder = save(tmp_path, trained, keep_last=1)
    assert {path.name for path in folder.iterdir()} == {
        "mae.safetensors",
        "mae_optimizer.safetensors",
        "policy.safetensors",
        "policy_optimizer.safetensors",
        "state.json",
        "config.yaml",
    }
    for path in folder.glob("*.safetensors"):
        raw = path.read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        header.pop("__metadata__", None)
        assert all(set(entry) == {"dtype", "shape", "data_offsets"} for entry in header.values())
    json.loads((folder / "state.json").read_text())


def test_loading_does_not_unpickle(
    tmp_path: Path, trained: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    save(tmp_path, trained, keep_last=1)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load(tmp_path)


def test_only_the_last_checkpoints_are_kept_and_the_pointer_names_the_newest(
    tmp_path: Path, trained: Checkpoint
) -> None:
    for step in (5, 10, 99, 100):
        save(tmp_path, at_step(trained, step), keep_last=2)
    root = tmp_path / "checkpoints"
    assert sorted(p.name for p in root.iterdir()) == ["latest", "step_00000099", "step_00000100"]
    assert (root / "latest").read_text() == "step_00000100\n"
    assert load(tmp_path).position.step == 100


def test_checkpoint_after_going_back_to_an_older_one_is_not_thrown_away_for_newer_ones(
    tmp_path: Path, trained: Checkpoint
) -> None:
    for step in (10, 20, 30):
        save(tmp_path, at_step(trained, step), keep_last=3)
    (tmp_path / "checkpoints" / "latest").write_text("step_00000010\n")
    save(tmp_path, at_step(trained, 15), keep_last=1)
    assert load(tmp_path).position.step == 15


def test_saving_the_same_step_again_replaces_it(tmp_path: Path, trained: Checkpoint) -> None:
    save(tmp_path, trained, keep_last=2)
    save(tmp_path, Checkpoint(trained.position, trained.mae, None, "name: other\n"), keep_last=2)
    assert load(tmp_path).config_yaml == "name: other\n"
    assert load(tmp_path).policy is None


def test_run_folder_checkpoints_folder_and_one_checkpoint_all_name_a_checkpoint(
    tmp_path: Path, trained: Checkpoint
) -> None:
    for step in (1, 2):
        save(tmp_path, at_step(trained, step), keep_last=2)
    root = tmp_path / "checkpoints"
    assert checkpoint.find(tmp_path) == checkpoint.find(root) == root / "step_00000002"
    assert checkpoint.find(str(root / "step_00000001")) == root / "step_00000001"


@pytest.mark.parametrize("content", [None, "", "step_00000009\n", "../../elsewhere\n"])
def test_folder_whose_pointer_leads_nowhere_holds_no_checkpoint(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "latest").write_text(content)
    with pytest.raises(CheckpointError, match=f"{tmp_path} holds no checkpoint; give a run folder"):
        load(tmp_path)


def test_write_that_breaks_off_leaves_the_older_checkpoint_in_force(
    tmp_path: Path, trained: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, at_step(trained, 1), keep_last=1)
    write, calls = checkpoint.save_tensors, [0]

    def fail(*args: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError("disk full")
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", fail)
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path, at_step(trained, 2), keep_last=1)
    assert load(tmp_path).position.step == 1
    assert names(tmp_path) == ["latest", "step_00000001"]
    save(tmp_path, at_step(trained, 3), keep_last=2)  # what broke off does not count as kept
    assert load(tmp_path).position.step == 3
    assert checkpoint.find(tmp_path / "checkpoints" / "step_00000001")


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_full_disk_stops_a_write_in_the_middle_and_nothing_of_it_is_left(
    tmp_path: Path, trained: Checkpoint
) -> None:
    save(tmp_path, at_step(trained, 1), keep_last=1)
    sizes = [p.stat().st_size for p in (tmp_path / "checkpoints" / "step_00000001").iterdir()]
    for limit in (max(sizes) // 2, 100):  # the largest file, and all of them
        with files_limited_to(limit), pytest.raises(OSError, match="File too large"):
            save(tmp_path, at_step(trained, 2), keep_last=1)
        assert names(tmp_path) == ["latest", "step_00000001"]
        assert load(tmp_path).position.step == 1


class Killed(BaseException):
    """Nothing after it happens, as after SIGKILL."""


def until_killed(change: Any, left: list[int]) -> Any:
    """A change to the disk that is done only while some are left."""

    def call(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return change(*args, **kwargs)

    return call


def test_process_killed_anywhere_in_a_save_leaves_a_whole_checkpoint_and_the_next_tidies_up(
    tmp_path: Path, trained: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [(Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "write_text"),
               (Path, "unlink"), (shutil, "rmtree")]  # fmt: skip
    found, last_ended = set(), False
    for number in range(60):
        run = tmp_path / str(number)
        for step in (1, 2):
            save(run, at_step(trained, step), keep_last=2)
        left = [number]
        with monkeypatch.context() as patch:
            for owner, name in changes:
                patch.setattr(owner, name, until_killed(getattr(owner, name), left))
            try:
                save(run, at_step(trained, 2), keep_last=1)  # the same step again, and one to go
                last_ended = True
            except Killed:
                pass
        _, whole, passed_over = checkpoint.load_newest(run, checkpoint.load)
        assert passed_over == []
        assert_same(dict(whole.mae), dict(trained.mae))
        found.add(whole.position.step)
        save(run, at_step(trained, 3), keep_last=1)
        assert names(run) == ["latest", "step_00000003"]
        if last_ended:
            break
    assert last_ended
    assert number > 8  # so it was killed at many places
    assert found == {2}


def flip(path: Path) -> None:
    """One bit of a tensor: the file still reads, as another one."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["mae.safetensors", "policy_optimizer.safetensors", "config.yaml"])
def test_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, trained: Checkpoint, name: str
) -> None:
    for step in (1, 2, 3):
        folder = save(tmp_path, at_step(trained, step), keep_last=3)
    flip(folder / name)
    with pytest.raises(CheckpointError, match=rf"{folder} is damaged: {name} is not what was"):
        load(tmp_path)
    used, whole, passed_over = checkpoint.load_newest(tmp_path, checkpoint.load)
    assert (used.name, whole.position.step) == ("step_00000002", 2)
    assert passed_over == [f"{folder} is damaged: {name} is not what was written"]
    flip(tmp_path / "checkpoints" / "step_00000002" / name)
    flip(tmp_path / "checkpoints" / "step_00000001" / name)
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* is complete: .*step_00000003"):
        checkpoint.load_newest(tmp_path, checkpoint.load)


def test_state_that_was_changed_is_damaged(tmp_path: Path, trained: Checkpoint) -> None:
    state = save(tmp_path, trained, keep_last=1) / "state.json"
    state.write_text(state.read_text().replace('"policy_version": 2', '"policy_version": 3'))
    with pytest.raises(CheckpointError, match=r"is damaged: state\.json is not what was written"):
        load(tmp_path)


def test_checkpoint_of_an_older_version_without_checksums_loads(
    tmp_path: Path, trained: Checkpoint
) -> None:
    file = save(tmp_path, trained, keep_last=1) / "state.json"
    state = json.loads(file.read_text())
    del state["files"], state["sha256"]
    file.write_text(json.dumps(state))
    assert load(tmp_path).position == trained.position


def test_best_checkpoint_is_kept_beside_the_last_and_found_by_its_name(
    tmp_path: Path, trained: Checkpoint
) -> None:
    root = tmp_path / "checkpoints"
    nan = float("nan")
    for step, error in enumerate([0.9, 0.3, 0.5, None, nan, 0.4], start=1):
        state = replace(at_step(trained, step), validation_error=error)
        save(tmp_path, state, keep_last=2)
    assert names(tmp_path) == ["best", "latest", *(f"step_0000000{n}" for n in (2, 5, 6))]
    assert checkpoint.find(root / "best").name == "step_00000002"
    assert load(root / "best").validation_error == 0.3
    save(tmp_path, replace(at_step(trained, 7), validation_error=0.2), keep_last=2)
    assert names(tmp_path) == ["best", "latest", "step_00000006", "step_00000007"]
    save(tmp_path, at_step(trained, 8), keep_last=1, keep_best=False)
    assert names(tmp_path) == ["latest", "step_00000008"]


def test_best_of_a_future_that_was_given_up_does_not_count(
    tmp_path: Path, trained: Checkpoint
) -> None:
    for step, error in ((10, 0.5), (20, 0.1)):
        save(tmp_path, replace(at_step(trained, step), validation_error=error), keep_last=2)
    (tmp_path / "checkpoints" / "latest").write_text("step_00000010\n")
    save(tmp_path, replace(at_step(trained, 15), validation_error=0.6), keep_last=1)
    assert checkpoint.find(tmp_path / "checkpoints" / "best").name == "step_00000010"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_with_noise(path: Path) -> None:
    path.write_bytes(bytes(range(128, 256)) * 20)


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, fill_with_noise])
@pytest.mark.parametrize(
    "name",
    [
        "mae.safetensors",
        "mae_optimizer.safetensors",
        "policy.safetensors",
        "policy_optimizer.safetensors",
        "state.json",
    ],
)
def test_damaged_file_is_a_checkpoint_error_that_names_the_folder(
    tmp_path: Path, trained: Checkpoint, name: str, damage: Callable[[Path], None]
) -> None:
    folder = save(tmp_path, trained, keep_last=1)
    damage(folder / name)
    gone = name == "state.json" and not (folder / name).exists()
    with pytest.raises(CheckpointError, match="holds no checkpoint" if gone else "is damaged"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', "has checkpoint format 2, this version reads 1"),
        ('{"format": 1}', "is damaged: 'position'"),
        ('{"format": 1, "position": {"epochs": 3}}', "is damaged"),
        ("[]", "is damaged"),
    ],
)
def test_state_of_another_form_is_a_checkpoint_error(
    tmp_path: Path, trained: Checkpoint, text: str, message: str
) -> None:
    folder = save(tmp_path, trained, keep_last=1)
    (folder / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_config_that_is_missing_beside_a_checkpoint_is_a_damage_too(
    tmp_path: Path, trained: Checkpoint
) -> None:
    (save(tmp_path, trained, keep_last=1) / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"is damaged.*config\.yaml"):
        load(tmp_path)


def test_copied_checkpoint_loads_from_its_new_place(tmp_path: Path, trained: Checkpoint) -> None:
    shutil.copytree(save(tmp_path / "a", trained, keep_last=1), tmp_path / "b")
    assert load(tmp_path / "b").position == trained.position


def test_weights_that_fit_are_put_in_to_the_last(mae: nn.Module, trained: Checkpoint) -> None:
    load_weights(mae, trained.mae["network"], source="here")
    assert_same(dict(mae.state_dict()), dict(trained.mae["network"]))


def test_weights_of_another_model_are_refused_by_name_count_and_shape(mae: nn.Module) -> None:
    weights = dict(mae.state_dict())
    total = len(weights)
    for name in ("mask_token", "decoder.head.bias", "decoder.norm.bias", "encoder.norm.bias"):
        del weights[name]
    weights["decoder.head.weight"] = torch.zeros(7, 8)
    weights["sampler.extra"] = torch.zeros(1)
    before = {name: value.clone() for name, value in mae.state_dict().items()}
    with pytest.raises(CheckpointError) as refusal:
        load_weights(mae, weights, source="old/run")
    message = str(refusal.value)
    assert message.startswith(f"old/run does not fit: {total - 5}/{total} tensors match")
    assert (
        "1 of a different size (decoder.head.weight (7, 8) in the file, (96, 8) in the" in message
    )
    assert "4 missing (decoder.head.bias, decoder.norm.bias, encoder.norm.bias, ...)" in message
    assert "1 unexpected (sampler.extra)" in message
    assert_same(before, dict(mae.state_dict()))  # nothing is loaded in part
