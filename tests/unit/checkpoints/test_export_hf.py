"""`tats export hf`: what the folder holds, what it says about its source, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import tats_ray
from tats_ray.__main__ import main
from tats_ray.checkpoints.export_hf import export_hf
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import restore
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.models.policy import SamplerPolicy
from tests.full_disk import disk_full_at, files_limited_to
from tests.official import encoder_only, filled, fine_tuned, save, videomae
from tests.random_checkpoints import (
    ARGS,
    clips,
    converted,
    official,
    own_run,
    same,
)


def test_export_of_a_run_is_loaded_back_with_its_sampler(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    export_hf(run, tmp_path / "hf")
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "sampler.safetensors",
        "sampler_config.json",
    }
    assert "run run, step 7" in (tmp_path / "hf" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "hf" / "README.md").read_text()
    ours, back = restore(run), open_checkpoint(tmp_path / "hf")
    assert same(back.mae.state_dict(), ours.mae.state_dict())
    assert back.config.sampler == ours.config.sampler
    assert isinstance(ours.policy, SamplerPolicy)
    assert isinstance(back.policy, SamplerPolicy)
    assert same(back.policy.state_dict(), ours.policy.state_dict())


def test_sampler_that_does_not_learn_needs_no_file(tmp_path: Path) -> None:
    export_hf(own_run(tmp_path / "run", sampler="random"), tmp_path / "hf")
    assert not list((tmp_path / "hf").glob("sampler*"))


def test_fine_tuned_file_becomes_a_classifier_of_transformers_and_back(tmp_path: Path) -> None:
    source, state = official(tmp_path, fine_tuned)
    export_hf(source, tmp_path / "hf")
    assert "VideoMAEForVideoClassification" in (tmp_path / "hf" / "config.json").read_text()
    model = tats_ray.load(tmp_path / "hf")
    assert torch.equal(model.classify(clips()), tats_ray.load(source).classify(clips()))
    converted(tmp_path / "hf", tmp_path / "back.pth")
    assert same(torch.load(tmp_path / "back.pth", weights_only=True)["model"], state)


def test_export_says_what_its_source_brought_and_names_what_is_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [f"decoder.blocks.0.mlp.fc{i}.bias" for i in (1, 2)] + [
        "decoder.norm.bias",
        "mask_token",
    ]
    state = {n: v for n, v in filled(videomae()).items() if n not in lost}
    source = save(tmp_path / "thin.pth", {**state, "extra": torch.ones(1)}, args=ARGS)
    main(["export", "hf", str(source), str(tmp_path / "hf")])
    assert capsys.readouterr().out == (
        "thin.pth, VideoMAE, pre-training: loaded 84/88, ignored 1\n"
        f"4 tensors missing, random in the export: {', '.join(lost[:3])}, ...\n"
        f"{tmp_path / 'hf'}\n"
    )
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "# thin.pth, VideoMAE, pre-training: loaded 84/88, ignored 1" in card
    assert "**Missing in the source, and random here:** `decoder.blocks.0.mlp.fc1.bias`, " in card
    assert all(f"`{name}`" in card for name in lost)


def test_classifier_lacks_no_decoder_in_an_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = official(tmp_path, fine_tuned)
    export_hf(source, tmp_path / "hf")
    said = capsys.readouterr().out
    assert said == "official.pth, VideoMAE, fine-tuned: loaded 54/88, ignored 0\n"
    assert "random" not in (tmp_path / "hf" / "README.md").read_text()


@pytest.mark.parametrize("change", ["missing", "of another size"])
def test_export_without_its_output_layer_is_refused(tmp_path: Path, change: str) -> None:
    """One tensor of 88 is less than 5 %, but every prediction passes through it."""
    state = filled(videomae())
    shape = state.pop("decoder.head.weight").shape
    if change == "of another size":
        state["decoder.head.weight"] = torch.zeros(7, shape[1])
    source = save(tmp_path / "headless.pth", state, args=ARGS)
    with pytest.raises(CheckpointError, match=r"output layer is missing \(decoder\.head\.weight"):
        export_hf(source, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_encoder_alone_is_not_exported(tmp_path: Path) -> None:
    source, _ = official(tmp_path, encoder_only)
    with pytest.raises(CheckpointError, match="it has no decoder"):
        export_hf(source, tmp_path / "hf")


def test_positions_that_others_do_not_have_are_refused(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run", pos_embed="sincos_3d")
    says = r"step 7 has model\.pos_embed 'sincos_3d', as the demo does; .* use tats_ray\.load in"
    with pytest.raises(UsageError, match=says):
        export_hf(run, tmp_path / "hf")
    with pytest.raises(UsageError, match=r"--model\.pos_embed sincos_1d to export"):
        converted(run, tmp_path / "out.pth")
    assert not (tmp_path / "hf").exists()
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("last", ["config.json", "sampler_config.json", "README.md"])
def test_export_that_finds_the_disk_full_half_way_leaves_nothing_and_can_be_tried_again(
    tmp_path: Path, last: str
) -> None:
    run, out = own_run(tmp_path / "run"), tmp_path / "hf"
    says = re.escape(f"{out} cannot be written (No space left on device); choose another path")
    with disk_full_at(last), pytest.raises(UsageError, match=f"^{says}$"):
        export_hf(run, out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(list(export_hf(run, out).iterdir())) == 6


def test_export_whose_weights_find_no_room_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    run, out = own_run(tmp_path / "run"), tmp_path / "hf"
    says = rf"^{re.escape(str(out))} cannot be written \(.*File too large"
    with files_limited_to(50_000), pytest.raises(UsageError, match=says):
        export_hf(run, out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_export_that_is_broken_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*args: object) -> None:
        raise KeyboardInterrupt

    run = own_run(tmp_path / "run")
    monkeypatch.setattr("tats_ray.checkpoints.huggingface._card", broken_off)
    with pytest.raises(KeyboardInterrupt):
        export_hf(run, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
