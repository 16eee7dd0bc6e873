"""Weight files of others: tensors come through, code does not run."""

from __future__ import annotations

import os
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.learning.weight_files import read_weights, refuse_existing, write_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["whole", "beside", "in the arguments", "in the state"])
def test_pickle_bomb_is_refused_by_name_and_nothing_of_it_runs(
    tmp_path: Path, place: str, is_legacy: bool
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "bomb.pth"
    bomb = Bomb(marker)
    content: object = {
        "whole": bomb,
        "beside": {"model": STATE, "scaler": bomb},
        "in the arguments": {"model": STATE, "args": Namespace(lr=1.0, hook=bomb)},
        "in the state": {"model": {**STATE, "extra": bomb}},
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=not is_legacy)
    with pytest.raises(
        CheckpointError, match=r"bomb\.pth asks to run \w+\.system when loaded"
    ) as e:
        read_weights(path)
    assert "\n" not in str(e.value)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the bomb is a real one
    assert marker.exists()


def test_bare_pickle_bomb_is_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError, match=r"bomb\.pth"):
        read_weights(path)
    assert not marker.exists()


def test_arguments_of_a_script_are_read_beside_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    args = Namespace(
        num_frames=16, mask_ratio=0.9, opt_betas=[0.9, 0.95], model="base", resume=None
    )
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({"model": STATE, "optimizer": optimizer, "epoch": 3, "args": args}, path)
    found = read_weights(path)
    assert found.args == vars(args)
    assert found.wrapper == "model"
    assert found.tensors.keys() == STATE.keys()
    assert all(torch.equal(found.tensors[name], STATE[name]) for name in STATE)


def test_admitting_namespaces_lasts_for_one_file_only(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save({"model": STATE, "args": Namespace(lr=1.0)}, path)
    read_weights(path)
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("wrapper", ["", "model", "module", "state_dict", "model_state"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, wrapper: str, prefix: str) -> None:
    path = tmp_path / "any.pth"
    state = OrderedDict((prefix + name, value) for name, value in STATE.items())
    torch.save({wrapper: state} if wrapper else state, path)
    found = read_weights(path)
    assert found.wrapper == wrapper
    assert found.tensors.keys() == STATE.keys()


def test_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    path = tmp_path / "mixed.pth"
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, path)
    assert set(read_weights(path).tensors) == {"module.a", "b"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], r"holds a list, not a state dict"),
        ({"epoch": 3, "lr": 0.1}, r"holds no state dict; its keys are epoch, lr"),
        ({}, r"holds no state dict; its keys are nothing"),
    ],
)
def test_file_without_tensors_is_refused(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=says):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "text"])
def test_damaged_file_is_one_line_that_names_it(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    write_weights(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[: len(whole) // 2], "noise": bytes(range(128, 256)) * 9, "empty": b"",
         "text": b"<html>Not found</html>\n"}[damage]
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("no.pth", "no.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name} does not exist"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["deep/a.pth", "deep/a.safetensors"])
def test_written_file_is_read_back_and_views_of_one_tensor_are_cut_apart(
    tmp_path: Path, name: str
) -> None:
    joint = torch.arange(12.0).reshape(6, 2)
    write_weights(tmp_path / name, {"top": joint[:3], "bottom": joint[3:]})
    found = read_weights(tmp_path / name).tensors
    assert torch.equal(torch.cat([found["top"], found["bottom"]]), joint)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [Path(name).name]
    if name.endswith(".pth"):
        assert torch.load(tmp_path / name, weights_only=True).keys() == {"model"}


def test_safetensors_of_others_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "theirs.safetensors")
    assert read_weights(tmp_path / "theirs.safetensors").tensors.keys() == STATE.keys()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new")
    with pytest.raises(UsageError, match=f"{tmp_path} already exists"):
        refuse_existing(tmp_path)
