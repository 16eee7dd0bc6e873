"""`tats ckpt convert`: official files become runs of ours, and runs official files."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

import tats_ray
from tats_ray.__main__ import main
from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.describe import inspect
from tats_ray.checkpoints.export_hf import export_hf
from tats_ray.checkpoints.restore import restore
from tats_ray.config.encoder_flags import ClipSize
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.core.types import Position
from tats_ray.evaluation.show_masks import show_masks
from tats_ray.models.policy import SamplerPolicy
from tats_ray.runs.convert import convert
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner
from tests.full_disk import disk_full_at, files_limited_to
from tests.official import (
    IMAGE_SIZE,
    NUM_FRAMES,
    NUM_TOKENS,
    PATCH,
    adamae,
    encoder_only,
    filled,
    fine_tuned,
    videomae,
)
from tests.random_checkpoints import (
    SIZES,
    clips,
    converted,
    official,
    own_run,
    same,
)


def test_official_autoencoder_becomes_a_run_of_ours_and_comes_back_the_same(
    tmp_path: Path,
) -> None:
    source, state = official(tmp_path, videomae)
    said = converted(source, tmp_path / "ours")
    assert said == [
        "official.pth, VideoMAE, pre-training: loaded 88/88, ignored 0",
        "it has no learned sampler: masks are tube masks",
        str(tmp_path / "ours"),
    ]
    found = restore(tmp_path / "ours")
    assert same(found.mae.state_dict(), state)
    assert (found.config.name, found.config.data.stride) == ("ours", 4)
    assert (found.grid.num_frames, found.grid.image_size) == (NUM_FRAMES, IMAGE_SIZE)
    assert (found.config.sampler.name, found.config.sampler.mask_ratio) == ("tube", 0.75)
    converted(tmp_path / "ours", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == {"model"}
    assert same(back["model"], state)


def test_adamae_brings_its_sampler_and_takes_it_home(tmp_path: Path) -> None:
    source, state = official(tmp_path, adamae)
    said = converted(source, tmp_path / "ours")
    assert said[0] == (
        "official.pth, AdaMAE, pre-training: loaded 88/88, ignored 0; "
        "sampler 14/14, with a new value head"
    )
    found = restore(tmp_path / "ours")
    assert found.config.sampler.name == "adamae"
    assert isinstance(found.policy, SamplerPolicy)
    positions = found.policy.state_dict()["sampler.pos_embed"]
    assert torch.equal(positions, state["encoder.pos_embed_probs"])
    converted(tmp_path / "ours", tmp_path / "back.safetensors")
    converted(tmp_path / "back.safetensors", tmp_path / "again.pth", clip=ClipSize(**SIZES))
    assert same(torch.load(tmp_path / "again.pth", weights_only=True)["model"], state)


def test_learners_go_on_from_a_converted_checkpoint(tmp_path: Path) -> None:
    source, _ = official(tmp_path, adamae)
    converted(source, tmp_path / "ours")
    state, found = checkpoints.load(tmp_path / "ours"), restore(tmp_path / "ours")
    assert state.position == Position()
    learner = MAELearner(
        found.mae, found.config.optim, steps_per_epoch=2, total_steps=4, global_batch=2
    )
    learner.load_state_dict(state.mae)
    visible_idx = torch.arange(0, NUM_TOKENS, 4).expand(2, -1)
    before = learner.learn(clips(), visible_idx).loss
    assert learner.step == 1
    assert math.isfinite(before)
    assert isinstance(found.policy, SamplerPolicy)
    assert state.policy is not None
    algorithm = found.config.algorithm.build(found.policy)
    PolicyLearner(found.policy, algorithm, seed=0).load_state_dict(state.policy)


def test_run_can_start_from_others_weights_with_settings_of_its_own(tmp_path: Path) -> None:
    source, state = official(tmp_path, adamae)
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"data: {{num_frames: {NUM_FRAMES}, image_size: {IMAGE_SIZE}}}\n"
        f"model: {{size: tiny, patch: {PATCH}}}\nsampler: {{name: tats}}\nloop: {{epochs: 3}}\n"
    )
    said = converted(source, tmp_path / "runs" / "mine", config=config)
    assert said[0] == (
        "official.pth, AdaMAE, pre-training: loaded 88/88, ignored 14; the tats sampler is new"
    )
    found = restore(tmp_path / "runs" / "mine")
    assert (found.config.loop.epochs, found.config.sampler.name) == (3, "tats")
    assert found.config.checkpoint.folder == str(tmp_path / "runs")
    assert torch.equal(found.mae.mask_token, state["mask_token"])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{size: tiny, patch: 16}", "2 frames by 8 pixels and width 128, the model of 2 by 16"),
        ("{size: tiny, patch: 8, tubelet: 1}", "2 frames by 8 pixels .*, the model of 1 by 8"),
        ("{size: small, patch: 8}", "pixels and width 128, the model of 2 by 8 and width 384"),
        (
            "{size: tiny, patch: 8, depth: 12}",
            r"loaded 88/192.*less than 95% of its autoencoder fits; 104",
        ),
    ],
)
def test_checkpoint_of_another_model_than_asked_for_is_refused_by_value(
    tmp_path: Path, model: str, says: str
) -> None:
    source, _ = official(tmp_path, videomae)
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {{num_frames: 4, image_size: 32}}\nmodel: {model}\n")
    with pytest.raises(CheckpointError, match=says):
        converted(source, tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shapes", [encoder_only, fine_tuned])
def test_encoder_alone_is_explained_wherever_a_decoder_is_needed(
    tmp_path: Path, shapes: object, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = official(tmp_path, shapes)
    explained = "it has no decoder, which masks and reconstructions need"
    with pytest.raises(SystemExit):
        main(["show-masks", str(source), "video.mp4"])
    error = capsys.readouterr().err
    assert explained in error
    assert error.count("\n") == 1
    with pytest.raises(
        CheckpointError, match=f"{explained}.*use --allow-partial to convert it anyway"
    ):
        converted(source, tmp_path / "ours")
    said = converted(source, tmp_path / "ours", allow_partial=True)
    assert "decoder.head.weight" in said[1]
    assert "decoder.head.weight" in dict(inspect(tmp_path / "ours"))["at random"]
    assert torch.equal(
        tats_ray.load(tmp_path / "ours").mae.encoder.patch_embed.proj.bias,
        filled(shapes())["patch_embed.proj.bias"],
    )
    with pytest.raises(CheckpointError, match=explained):
        show_masks(tmp_path / "ours", "video.mp4", tmp_path / "masks.png")


def test_sampler_without_an_official_name_stays_behind_and_is_named(tmp_path: Path) -> None:
    said = converted(own_run(tmp_path / "run"), tmp_path / "out.pth")
    assert "left out the tats sampler: the official format has AdaMAE's only" in said
    assert len(torch.load(tmp_path / "out.pth", weights_only=True)["model"]) == 88


def test_nothing_is_converted_to_what_it_is_or_over_what_is_there(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"is already a run of tats_ray; end OUT in \.pth"):
        converted(run, tmp_path / "again")
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {size: tiny}\n")
    with pytest.raises(UsageError, match="has its own settings; leave out --config"):
        converted(run, tmp_path / "out.pth", config=mine)
    with pytest.raises(UsageError, match="--config already sets frames and pixels of a clip"):
        converted(run, tmp_path / "out.pth", config=mine, clip=ClipSize(num_frames=4))
    for change in (convert, export_hf):
        with pytest.raises(UsageError, match="already exists"):
            list(change(run, tmp_path))  # type: ignore[operator]


@pytest.mark.parametrize("last", ["state.json", "origin.json", "config.yaml"])
def test_run_that_finds_the_disk_full_half_way_leaves_nothing_and_can_be_tried_again(
    tmp_path: Path, last: str
) -> None:
    (source, state), out = official(tmp_path, videomae), tmp_path / "ours"
    says = re.escape(f"{out} cannot be written (No space left on device); choose another path")
    with disk_full_at(last), pytest.raises(UsageError, match=f"^{says}$"):
        converted(source, out)
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]
    converted(source, out)
    assert same(restore(out).mae.state_dict(), state)


def test_run_whose_weights_find_no_room_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (source, _), out = official(tmp_path, videomae), tmp_path / "ours"
    says = rf"^{re.escape(str(out))} cannot be written \(.*File too large"
    with files_limited_to(50_000), pytest.raises(UsageError, match=says):
        converted(source, out)
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]
