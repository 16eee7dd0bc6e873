"""`tats ckpt inspect`: says what a checkpoint is, and what loading will say."""

from __future__ import annotations

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
from tests.official import NUM_CLASSES, adamae, encoder_only, filled, fine_tuned, save, videomae
from tests.random_checkpoints import ARGS, converted, official, own_run


def test_inspection_names_everything(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    export_hf(run, tmp_path / "hf")
    adamae_file, _ = official(tmp_path, adamae, "adamae.pth")
    tuned, _ = official(tmp_path, fine_tuned, "tuned.pth")
    lines = {path: dict(inspect(path)) for path in (run, tmp_path / "hf", adamae_file, tuned)}
    assert lines[run]["kind"] == "tats_ray, run folder (step_00000007)"
    assert lines[run]["sampler"] == "tats, mask ratio 0.75"
    assert lines[run]["positions"] == "sincos_1d"
    assert lines[tmp_path / "hf"]["kind"] == "Hugging Face VideoMAE, pre-training"
    # Of 104 tensors of blocks and others, the joint projections are three each.
    assert lines[tmp_path / "hf"]["tensors"].startswith("100, ")
    for found in lines.values():
        assert found["encoder"] == "size tiny: width 128, depth 4"
        assert found["tokens"] == "2 frames of 8 x 8 pixels"
        assert "4" in found["clip"]
        assert "32" in found["clip"]
    assert lines[adamae_file]["sampler"] == "AdaMAE's, 32 tokens"
    assert lines[adamae_file]["decoder"] == lines[run]["decoder"] == "width 64, depth 2"
    assert lines[tuned]["head"] == f"{NUM_CLASSES} classes"
    assert lines[run]["fit"] == lines[tmp_path / "hf"]["fit"].partition(";")[0]
    assert lines[run]["fit"] == "loaded 88/88, ignored 0"
    assert lines[adamae_file]["fit"] == (
        "loaded 88/88, ignored 0; sampler 14/14, with a new value head"
    )
    assert lines[tuned]["fit"] == "loaded 54/88, ignored 0"
    assert lines[tuned]["at random"].startswith("34: decoder.blocks.0.attn.proj.bias, ")
    one = dict(inspect(run / "checkpoints" / "step_00000007"))
    assert one["kind"] == "tats_ray, one checkpoint (step_00000007)"


@pytest.mark.parametrize(
    ("shapes", "extra", "total"),
    [(videomae, "extra", 88), (fine_tuned, "extra", 88), (videomae, "head.bias", 88)],
)
def test_inspection_says_what_loading_says(
    tmp_path: Path, shapes: object, extra: str, total: int
) -> None:
    state = {**filled(shapes()), extra: torch.ones(NUM_CLASSES)}
    source = save(tmp_path / "more.pth", state, args=ARGS)
    fit = dict(inspect(source))["fit"]
    assert re.fullmatch(rf"loaded \d\d/{total}, ignored 1", fit)
    assert tats_ray.load(source).origin.endswith(f": {fit}")


@pytest.mark.parametrize(("allow_partial", "share"), [(False, "88/88"), (True, "56/88")])
def test_inspection_of_a_converted_run_counts_what_its_source_brought(
    tmp_path: Path, allow_partial: bool, share: str
) -> None:
    source, _ = official(tmp_path, encoder_only if allow_partial else videomae)
    converted(source, tmp_path / "ours", allow_partial=allow_partial)
    assert dict(inspect(tmp_path / "ours"))["fit"] == f"loaded {share}, ignored 0"
    said = converted(tmp_path / "ours", tmp_path / "back.pth", allow_partial=allow_partial)
    assert said[0] == f"tats_ray run ours, step 0: loaded {share}, ignored 0"


def test_inspection_goes_on_where_a_file_cannot_be_loaded_as_it_is(tmp_path: Path) -> None:
    found = dict(inspect(save(tmp_path / "bare.pth", filled(adamae()))))
    assert found["fit"].startswith("none: ")
    assert "bare.pth has a sampler for 32 tokens; 16 frames of 224 pixels give" in found["fit"]
    assert found["tensors"].startswith("102, ")


def test_settings_of_any_kind_are_one_line(tmp_path: Path) -> None:
    args = Namespace(num_frames="many\n\x1blines" + "x" * 99, input_size=(32, 32))
    source = save(tmp_path / "odd.pth", filled(videomae()), args=args)
    clip = dict(inspect(source))["clip"]
    assert clip == "many linesxxxxxxxxxx, (32, 32) (frames, pixels; as noted)"


def test_path_that_cannot_be_looked_at_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        inspect(tmp_path / ("a" * 300))


def test_inspection_of_an_unknown_file_shows_names(tmp_path: Path) -> None:
    path = save(tmp_path / "resnet.pth", {"conv1.weight": torch.zeros(64, 3, 7, 7)})
    assert dict(inspect(path)) == {
        "kind": "unknown",
        "names": "conv1.weight",
        "tensors": "1, 9,408 values",
    }
    with pytest.raises(CheckpointError, match=r"not a VideoMAE-style model: its 1 tensors.*conv1"):
        tats_ray.load(path)


def test_commands_print_what_they_found_and_where_they_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = official(tmp_path, adamae)
    main(["ckpt", "inspect", str(source)])
    assert "AdaMAE, pre-training" in capsys.readouterr().out
    main(["ckpt", "convert", str(source), str(tmp_path / "ours")])
    assert "loaded 88/88, ignored 0" in capsys.readouterr().out
    main(["export", "hf", str(tmp_path / "ours"), str(tmp_path / "hf")])
    assert capsys.readouterr().out == (
        f"tats_ray run ours, step 0: loaded 88/88, ignored 0\n{tmp_path / 'hf'}\n"
    )
