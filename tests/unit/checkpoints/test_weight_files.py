"""Weight files of others: tensors come through, code does not run."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import re
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tats_ray.checkpoints.weight_files import read_weights, refuse_existing, write_weights
from tats_ray.core.errors import CheckpointError, UsageError
from tests.full_disk import files_limited_to

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


class NumpyNumber:
    """Pickled as a number of numpy's, with something else in it."""

    def __init__(self, content: object) -> None:
        self.content = content

    def __reduce__(self) -> tuple[object, tuple[object, bytes]]:
        rebuild, _ = np.float64(1).__reduce__()
        return rebuild, (self.content, b"")


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "place", ["whole", "beside", "in the arguments", "in the state", "in a number of numpy's"]
)
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
        "in a number of numpy's": {"model": STATE, "lr": NumpyNumber(bomb)},
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=not is_legacy)
    with pytest.raises(
        CheckpointError, match=r"bomb\.pth asks to run \w+\.system when loaded"
    ) as e:
        read_weights(path)
    assert "\n" not in str(e.value)
    assert not marker.exists()
    with contextlib.suppress(TypeError):  # of numpy, when the bomb has gone off
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


@pytest.mark.parametrize("form", ["zip", "legacy", "numpy before 2"])
def test_optimiser_with_rates_of_numpys_is_passed_over(tmp_path: Path, form: str) -> None:
    """The official training loop sets `param_group["lr"]` from a table of numpy's."""
    path = tmp_path / "official.pth"
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.param_groups[0]["lr"] = np.linspace(0, 1e-3, 5)[2]
    optimizer.step()
    assert type(optimizer.state_dict()["param_groups"][0]["lr"]) is np.float64
    args = Namespace(num_frames=16, lr=np.float64(1e-3))
    content = {"model": STATE, "optimizer": optimizer.state_dict(), "epoch": 3, "args": args}
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    if form == "numpy before 2":
        path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
    found = read_weights(path)
    assert all(torch.equal(found.tensors[name], STATE[name]) for name in STATE)
    assert found.args == {"num_frames": 16}


def test_arrays_of_numpys_are_refused_as_before(tmp_path: Path) -> None:
    torch.save({"model": STATE, "mean": np.ones(2)}, tmp_path / "array.pth")
    with pytest.raises(CheckpointError, match=r"asks to run numpy\._?core\.multiarray\._reconstru"):
        read_weights(tmp_path / "array.pth")


@pytest.mark.parametrize("extra", [Namespace(lr=1.0), np.float64(1)], ids=["Namespace", "numpy"])
def test_admitting_more_than_torch_lasts_for_one_file_only(tmp_path: Path, extra: object) -> None:
    path = tmp_path / "official.pth"
    torch.save({"model": STATE, "args": extra}, path)
    read_weights(path)
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace|multiarray\.scalar"):
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


@pytest.mark.parametrize(
    "wrapped",
    [
        "encoder._orig_mod.patch_embed.proj.weight",
        "encoder.blocks.0._checkpoint_wrapped_module.attn.qkv.weight",
        "_fsdp_wrapped_module.encoder.blocks.0._orig_mod.attn.qkv.weight",
        "encoder.module.norm.weight",
    ],
)
def test_wrapper_inside_a_name_is_taken_off_where_others_have_none(
    tmp_path: Path, wrapped: str
) -> None:
    path = tmp_path / "some.pth"
    torch.save({wrapped: torch.ones(1), "decoder.norm.bias": torch.ones(1)}, path)
    plain = re.sub(
        r"(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|module)\.", "", wrapped
    )
    assert set(read_weights(path).tensors) == {plain, "decoder.norm.bias"}


def test_tensor_that_is_there_twice_wrapped_and_bare_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.pth"
    torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="two tensors a, one of them wrapped"):
        read_weights(path)


def test_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    torch.save({"backbone.a": torch.ones(1), "b": torch.ones(1)}, path)
    assert set(read_weights(path).tensors) == {"backbone.a", "b"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], r"holds a list, not a state dict"),
        ({"epoch": 3, "lr": 0.1}, r"holds no state dict; its keys are epoch, lr"),
        ({}, r"holds no state dict; its keys are nothing"),
        ({"a\nb" + "c" * 99: 1}, r"its keys are a bc{37}$"),
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"hello world\nand more\n", "it begins with 'hello world'"),
        (b"root:x:0:0\n", "it begins with 'root:x:0:0'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it begins with 'version https://git"),
        (b"\0" * 4096, "its first bytes are 00 00 00 00 00 00 00 00"),
        (b"a.txt" + b"\0" * 600, "its first bytes are 61 2e 74 78 74 00 00 00"),
        (b"PK\x03\x04" + b"\0" * 100, "its zip archive is truncated or corrupt"),
        (
            pickle.dumps({"a": 1}),
            "it is a pickle that is truncated, or was not written by torch.save",
        ),
    ],
)
def test_what_is_no_pytorch_file_is_told_by_how_it_begins(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    start = re.escape(f"{path} is damaged, or not a PyTorch file: {says}")
    with pytest.raises(CheckpointError, match=f"^{start}"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".legacy.pth", ".safetensors"])
def test_whatever_is_altered_or_cut_off_ends_in_one_line(tmp_path: Path, suffix: str) -> None:
    path, draw = tmp_path / f"a{suffix}", random.Random(0)
    if suffix == ".legacy.pth":
        torch.save({"model": STATE}, path, _use_new_zipfile_serialization=False)
    else:
        write_weights(path, STATE)
    whole, refusals = path.read_bytes(), []
    for _ in range(150):
        altered = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(min(len(altered), draw.randint(1, 4))):
            altered[draw.randrange(len(altered))] = draw.randrange(256)
        path.write_bytes(altered)
        try:
            read_weights(path)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 75
    one_line = re.compile(rf"{re.escape(str(path))}.* .{{8,}}")
    assert [text for text in refusals if not one_line.fullmatch(text)] == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda value: value.to_sparse(), r"is sparse \(sparse_coo\)"),
        (lambda value: value.to_sparse_csr(), r"is sparse \(sparse_csr\)"),
        (lambda value: value.to("meta"), r"has no values \(device meta\)"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "is quantized"),
        (lambda value: value.to(torch.complex64), "is complex"),
        (
            lambda value: value[:1, :1].expand(9, 9),
            r"claims shape \(9, 9\), more than is stored of it",
        ),
    ],
    ids=["sparse", "csr", "meta", "quantized", "complex", "spread out"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensor_that_no_network_takes_is_named(
    tmp_path: Path, make: Callable[[Tensor], Tensor], says: str
) -> None:
    path = tmp_path / "odd.pth"
    odd = make(STATE["a.weight"])
    torch.save({"model": {**STATE, "b.weight": odd}}, path)
    with pytest.raises(CheckpointError, match=rf"odd\.pth: b\.weight {says}; only dense tensors"):
        read_weights(path)
    torch.save({"model": STATE, "optimizer": {"b": odd}}, path)
    assert read_weights(path).tensors.keys() == STATE.keys()


@pytest.mark.parametrize("name", ["two\nlines", "blocks." + "9" * 5000], ids=["lines", "length"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_name_that_is_no_name_is_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"odd{suffix}"
    write_weights(path, {**STATE, name: torch.ones(1)})
    with pytest.raises(CheckpointError, match="has a tensor with a bad name: ") as error:
        read_weights(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_safetensors_without_tensors_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"none\.safetensors holds no tensors"):
        read_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_place_that_cannot_be_written_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc"), Path("/proc/x"), tmp_path / "file"):
        with pytest.raises(UsageError, match=rf"{name} cannot be written \(.+\); choose") as error:
            write_weights(folder / name, STATE)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    says = rf"{name} cannot be written \(.*File too large"
    with files_limited_to(50_000), pytest.raises(UsageError, match=says):
        write_weights(tmp_path / name, {"a": torch.zeros(100_000)})
    assert list(tmp_path.iterdir()) == []


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
