"""Damaged and hostile checkpoints: one line that names the file; nothing in it is run or built."""

from __future__ import annotations

import json
import os
import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import tats_ray
from tats_ray.__main__ import main
from tats_ray.checkpoints.describe import inspect
from tats_ray.checkpoints.export_hf import export_hf
from tats_ray.core.errors import CheckpointError
from tests.official import WIDTH, filled, fine_tuned, save, videomae
from tests.random_checkpoints import ARGS, converted, official, own_run


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"input_size": 1_600_000}, "4 frames of 1600000 pixels are 80,000,000,000 tokens"),
        ({"num_frames": 2 * 10**9}, "2000000000 frames of 32 pixels are 16,000,000,000 tokens"),
        ({"input_size": 33}, "image_size 33 is not a multiple of the patch size 8; try 32 or 40"),
        ({"num_frames": 3}, "num_frames 3 is not a multiple of the tubelet size 2"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_file_before_anything_is_built(
    tmp_path: Path, setting: dict[str, int], says: str, nothing_built: None
) -> None:
    args = Namespace(**{**vars(ARGS), **setting})
    source = save(tmp_path / "odd.pth", filled(videomae()), args=args)
    with pytest.raises(CheckpointError, match=re.escape(f"{source}: {says}")):
        tats_ray.load(source)
    assert says in dict(inspect(source))["fit"]


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("was built")

    for name in ("build_mae", "build_policy", "ClassifierHead"):
        monkeypatch.setattr(f"tats_ray.checkpoints.foreign_networks.{name}", build)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"encoder.blocks.99999999.norm1.weight": (WIDTH,)}, "99999999 but no encoder.blocks.4"),
        (
            {f"encoder.blocks.{i}.a": (1,) for i in range(500)},
            "names 500 blocks of width 128, some",
        ),
        ({"decoder.blocks.7.a": (1,)}, "decoder.blocks.7 but no decoder.blocks.2"),
    ],
)
def test_depth_that_the_tensors_do_not_bear_out_is_refused_before_anything_is_built(
    tmp_path: Path, more: dict[str, tuple[int, ...]], says: str, nothing_built: None
) -> None:
    state = {**filled(videomae()), **{n: torch.zeros(shape) for n, shape in more.items()}}
    source = save(tmp_path / "deep.pth", state, args=ARGS)
    with pytest.raises(CheckpointError, match=f"deep.pth .*{says}"):
        tats_ray.load(source)
    assert says in dict(inspect(source))["fit"]


@pytest.mark.parametrize("shape", [(10**9, 0), (0, WIDTH), (5, WIDTH + 1), (5,)])
def test_head_that_does_not_fit_the_encoder_is_refused_by_shape(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    state = {**filled(fine_tuned()), "head.weight": torch.zeros(shape)}
    source = save(tmp_path / "odd.pth", state, args=ARGS)
    says = re.escape(
        f"{source}, its head: head.weight is {shape}, which is not classes by width 128"
    )
    with pytest.raises(CheckpointError, match=says):
        tats_ray.load(source)


def test_sampler_that_its_tensors_do_not_bear_out_is_refused(tmp_path: Path) -> None:
    export_hf(own_run(tmp_path / "run"), tmp_path / "hf")
    file = tmp_path / "hf" / "sampler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_blocks": 10**9}))
    with pytest.raises(
        CheckpointError, match=r"sampler_config\.json says num_blocks 1000000000, and"
    ):
        tats_ray.load(tmp_path / "hf")


def test_head_that_is_no_classifier_of_the_family_is_refused(tmp_path: Path) -> None:
    state = {n: v for n, v in filled(fine_tuned()).items() if not n.startswith("fc_norm")}
    with pytest.raises(CheckpointError, match="its head: loaded 2/4"):
        tats_ray.load(save(tmp_path / "odd.pth", state, args=ARGS))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is damaged: Expecting"),
        ("\0\xff", "is damaged: "),
        ("[1]", "has no list `missing` of names"),
        ('{"missing": 3}', "has no list `missing` of names"),
        ('{"missing": [3]}', "has no list `missing` of names"),
    ],
)
def test_damaged_note_of_the_origin_is_one_line(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = official(tmp_path, videomae)
    converted(source, tmp_path / "ours")
    (file,) = (tmp_path / "ours").rglob("origin.json")
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit) as ended:
        main(["ckpt", "inspect", str(tmp_path / "ours")])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(f"tats: {file} {says}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    ["export hf {source} {out}", "ckpt convert {source} {out}", "ckpt convert {source} {out}.pth",
     "ckpt convert {source} {out}.safetensors"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["/proc", "/proc/x", "{tmp_path}/official.pth"])
def test_place_that_cannot_be_written_ends_every_command_with_one_line(
    tmp_path: Path, words: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = official(tmp_path, videomae)
    out = f"{place.format(tmp_path=tmp_path)}/out"
    with pytest.raises(SystemExit) as ended:
        main(words.format(source=source, out=out).split())
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(f"tats: {out}")
    assert "cannot be written (" in error
    assert error.count("\n") == 1


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "words",
    [
        ["ckpt", "inspect", "{bad}"],
        ["ckpt", "convert", "{bad}", "{out}"],
        ["export", "hf", "{bad}", "{out}"],
        ["show-masks", "{bad}", "video.mp4"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["bomb", "corrupt", "missing", "empty folder"])
def test_bad_files_end_every_command_with_one_line_and_run_nothing(
    tmp_path: Path, words: list[str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, bad = tmp_path / "marker", tmp_path / "bad.pth"
    if kind == "bomb":
        torch.save({"model": filled(videomae()), "args": Bomb(marker)}, bad)
    elif kind == "corrupt":
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(b"\xff" * 100)
    elif kind == "empty folder":
        bad.mkdir()
    with pytest.raises(SystemExit) as ended:
        main([word.format(bad=bad, out=tmp_path / "out") for word in words])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("tats: ")
    assert str(bad) in error
    assert error.count("\n") == 1
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
