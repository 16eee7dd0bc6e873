"""Inspect, convert, export and load: checkpoints of others here, ours elsewhere, and what is said.

Weights are random and in the official naming, made from its rules by `official.py`.
"""

from __future__ import annotations

import json
import os
import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from official import (
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_FRAMES,
    NUM_TOKENS,
    PATCH,
    WIDTH,
    State,
    adamae,
    encoder_only,
    filled,
    fine_tuned,
    save,
    videomae,
)
from torch import Tensor

import tats_ray
from tats_ray.__main__ import main
from tats_ray.config.encoder import ClipSize
from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.core.seeds import stream
from tats_ray.data.synthetic import synthesize
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.learning.loop import Position
from tats_ray.learning.mae_learner import MAELearner
from tats_ray.learning.policy_learner import PolicyLearner
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import build_mae, build_policy, token_grid
from tats_ray.recipes.adopt import open_checkpoint
from tats_ray.recipes.convert import convert
from tats_ray.recipes.export_hf import export_hf
from tats_ray.recipes.inspect_checkpoint import inspect
from tats_ray.recipes.restore import restore
from tats_ray.recipes.show_masks import show_masks

ARGS = Namespace(num_frames=NUM_FRAMES, input_size=IMAGE_SIZE, sampling_rate=4, mask_ratio=0.75)
SIZES = {"num_frames": NUM_FRAMES, "image_size": IMAGE_SIZE}


def clips(count: int = 2) -> Tensor:
    shape = (count, 3, NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE)
    return torch.randint(256, shape, generator=stream(0, "clips"), dtype=torch.uint8)


def official(tmp_path: Path, shapes: object, name: str = "official.pth") -> tuple[Path, State]:
    state = filled(shapes())
    return save(tmp_path / name, state, args=ARGS), state


def own_run(folder: Path, *, pos_embed: str = "sincos_1d", sampler: str = "tats") -> Path:
    """A run folder of ours with random weights, at step 7."""
    config = parse_config(
        {
            "name": folder.name,
            "data": SIZES,
            "model": {"size": "tiny", "patch": PATCH, "pos_embed": pos_embed},
            "sampler": {"name": sampler, "mask_ratio": 0.75, "actor_init": "xavier"},
        }
    )
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=5)
    mae.load_state_dict(filled(videomae(), "own"))
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    policy = build_policy(config.sampler, config.model, grid, seed=5)
    state = None
    if isinstance(policy, SamplerPolicy):
        state = PolicyLearner(policy, config.algorithm.build(policy), seed=5).state_dict()
    text = dump_config(config)
    found = checkpoints.Checkpoint(Position(step=7), learner.state_dict(), state, text)
    checkpoints.save(folder, found, keep_last=1)
    return folder


def converted(source: Path, out: Path, **options: object) -> list[str]:
    return list(convert(source, out, **options))


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_official_autoencoder_becomes_a_run_of_ours_and_comes_back_the_same(
    tmp_path: Path,
) -> None:
    source, state = official(tmp_path, videomae)
    said = converted(source, tmp_path / "ours")
    assert said == [
        "official.pth, VideoMAE, pre-training: loaded 88/88, ignored 0",
        "no learned sampler in it: masks are tube masks",
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
        "sampler 14/14, its value head new"
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
    before = learner.score(clips(), visible_idx).sum()
    assert learner.step == 1
    assert torch.isfinite(before)
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
        ("{size: tiny, patch: 8, depth: 12}", r"loaded 88/192.*under 95% of its autoencoder; 104"),
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
    explained = "it has no decoder; masks and reconstructions need all of a pre-training checkpoint"
    with pytest.raises(SystemExit):
        main(["show-masks", str(source), "video.mp4"])
    error = capsys.readouterr().err
    assert explained in error
    assert error.count("\n") == 1
    with pytest.raises(
        CheckpointError, match=f"{explained}.*--allow-partial takes it all the same"
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


def test_too_little_of_an_encoder_is_refused_by_load(tmp_path: Path) -> None:
    state = {n: v for n, v in filled(encoder_only()).items() if "mlp" not in n}
    source = save(tmp_path / "thin.pth", state, args=ARGS)
    with pytest.raises(CheckpointError, match=r"loaded 40/88.*under 95% of its encoder; 16 do not"):
        tats_ray.load(source)


def test_masks_of_an_official_checkpoint_are_drawn_without_converting(tmp_path: Path) -> None:
    source, _ = official(tmp_path, adamae)
    made = synthesize(tmp_path / "v", num_train=2, num_val=2, num_frames=16, size=32, workers=1)
    video = next(made.train_list.parent.rglob("*.mp4"))
    assert show_masks(source, video, tmp_path / "masks.png").stat().st_size > 1000
    features = tats_ray.load(source).encode(video)
    assert features.shape == (1, 128)
    assert torch.isfinite(features).all()


@torch.no_grad()
@pytest.mark.parametrize("form", ["run", "checkpoint", "file", "transformers"])
def test_features_are_the_mean_of_the_encoders_tokens_in_any_form(
    tmp_path: Path, form: str
) -> None:
    run = own_run(tmp_path / "run")
    path = {
        "run": run,
        "checkpoint": run / "checkpoints" / "step_00000007",
        "file": tmp_path / "official.pth",
        "transformers": tmp_path / "hf",
    }[form]
    if form == "file":
        converted(run, path)
    elif form == "transformers":
        export_hf(run, path)
    model = tats_ray.load(path, **SIZES)
    mae = restore(run).mae
    everything = torch.arange(NUM_TOKENS).expand(2, -1)
    tokens = mae.encode(mae.pixels(clips()), everything)
    assert torch.equal(model.encode(clips()), tokens.mean(1))
    assert torch.equal(model.encode(clips(), pooled=False), tokens)
    assert torch.allclose(model.encode(clips()[0]), tokens.mean(1)[:1], atol=1e-6)
    assert isinstance(model.policy, SamplerPolicy) == (form != "file")
    assert model.config.data.image_size == IMAGE_SIZE
    assert model.to("cpu") is model


def test_file_of_our_checkpoint_stands_for_all_of_it(tmp_path: Path) -> None:
    """Its positions are said in config.yaml only: alone it would pass for an official file."""
    run = own_run(tmp_path / "run", pos_embed="sincos_3d")
    file = run / "checkpoints" / "step_00000007" / "mae.safetensors"
    assert torch.equal(tats_ray.load(file).encode(clips()), tats_ray.load(run).encode(clips()))
    assert dict(inspect(file))["positions"] == "sincos_3d"
    with pytest.raises(UsageError, match="sincos_1d to export"):
        converted(file, tmp_path / "out.pth")


@torch.no_grad()
def test_fine_tuned_model_encodes_what_its_classifier_reads(tmp_path: Path) -> None:
    source, state = official(tmp_path, fine_tuned)
    model = tats_ray.load(source)
    tokens = model.encode(clips(), pooled=False)
    mean = torch.nn.functional.layer_norm(
        tokens.mean(1), (128,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6
    )
    torch.testing.assert_close(model.encode(clips()), mean)
    logits = mean @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(model.classify(clips()), logits)
    # The last block's tokens have not been normalised.
    assert tokens.var(-1).mean() > 1.2


def test_what_cannot_be_encoded_is_refused_by_value(tmp_path: Path) -> None:
    model = tats_ray.load(own_run(tmp_path / "run"))
    for clip in (clips().float(), clips()[:, :, :2], clips()[0, 0], clips()[..., :16]):
        with pytest.raises(
            UsageError, match=re.escape(f"{clip.dtype} of shape {tuple(clip.shape)}")
        ):
            model.encode(clip)
    with pytest.raises(UsageError, match="run run, step 7 has no classifier"):
        model.classify(clips())


def test_clip_sizes_come_from_the_file_from_the_caller_or_from_the_paper(tmp_path: Path) -> None:
    state = filled(videomae())
    bare = save(tmp_path / "bare.pth", state)
    assert open_checkpoint(bare).grid.clip_shape == (3, 16, 224, 224)
    assert open_checkpoint(bare, clip=ClipSize(**SIZES)).grid.clip_shape == (3, 4, 32, 32)
    noted = save(tmp_path / "noted.pth", state, args=ARGS)
    assert open_checkpoint(noted).grid.clip_shape == (3, 4, 32, 32)
    odd = save(tmp_path / "odd.pth", state, args=Namespace(num_frames="many", input_size=-1))
    assert open_checkpoint(odd).grid.clip_shape == (3, 16, 224, 224)


def test_clip_sizes_that_a_checkpoint_does_not_have_are_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "adamae.pth", filled(adamae()))
    with pytest.raises(
        CheckpointError, match="sampler for 32 tokens; 16 frames of 224 pixels give"
    ):
        tats_ray.load(source)
    assert tats_ray.load(source, **SIZES).grid.num_tokens == 32
    noted, _ = official(tmp_path, videomae)
    with pytest.raises(UsageError, match=r"official\.pth was trained with num_frames 4, not 8"):
        tats_ray.load(noted, num_frames=8)
    run = own_run(tmp_path / "run")
    with pytest.raises(UsageError, match="was trained with image_size 32, not 64; leave it out"):
        tats_ray.load(run, image_size=64)


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
        f"4 not in it, at random in the export: {', '.join(lost[:3])}, ...\n"
        f"{tmp_path / 'hf'}\n"
    )
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "# thin.pth, VideoMAE, pre-training: loaded 84/88, ignored 1" in card
    assert "**Not in its source, and random here:** `decoder.blocks.0.mlp.fc1.bias`, " in card
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
    with pytest.raises(CheckpointError, match=r"output layer is not in it \(decoder\.head\.weight"):
        export_hf(source, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_encoder_alone_is_not_exported(tmp_path: Path) -> None:
    source, _ = official(tmp_path, encoder_only)
    with pytest.raises(CheckpointError, match="it has no decoder"):
        export_hf(source, tmp_path / "hf")


def test_positions_that_others_do_not_have_are_refused(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run", pos_embed="sincos_3d")
    with pytest.raises(UsageError, match=r"run run, step 7 has model\.pos_embed 'sincos_3d'"):
        export_hf(run, tmp_path / "hf")
    with pytest.raises(UsageError, match=r"--model\.pos_embed sincos_1d to export"):
        converted(run, tmp_path / "out.pth")
    assert not (tmp_path / "hf").exists()
    assert not (tmp_path / "out.pth").exists()


def test_sampler_without_an_official_name_stays_behind_and_is_named(tmp_path: Path) -> None:
    said = converted(own_run(tmp_path / "run"), tmp_path / "out.pth")
    assert "left out the tats sampler: published code has names for AdaMAE's only" in said
    assert len(torch.load(tmp_path / "out.pth", weights_only=True)["model"]) == 88


def test_nothing_is_converted_to_what_it_is_or_over_what_is_there(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"has our form already; end OUT in \.pth"):
        converted(run, tmp_path / "again")
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {size: tiny}\n")
    with pytest.raises(UsageError, match="has settings of its own; leave out --config"):
        converted(run, tmp_path / "out.pth", config=mine)
    with pytest.raises(UsageError, match="--config says frames and pixels of a clip"):
        converted(run, tmp_path / "out.pth", config=mine, clip=ClipSize(num_frames=4))
    for change in (convert, export_hf):
        with pytest.raises(UsageError, match="already exists"):
            list(change(run, tmp_path))  # type: ignore[operator]


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
        "loaded 88/88, ignored 0; sampler 14/14, its value head new"
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
        monkeypatch.setattr(f"tats_ray.recipes.foreign.{name}", build)


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
    says = re.escape(f"{source}, its head: head.weight is {shape}, not classes by width 128")
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
    with pytest.raises(CheckpointError, match=r"no model of this family: its 1 tensors.*conv1"):
        tats_ray.load(path)


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


def test_head_that_is_no_classifier_of_the_family_is_refused(tmp_path: Path) -> None:
    state = {n: v for n, v in filled(fine_tuned()).items() if not n.startswith("fc_norm")}
    with pytest.raises(CheckpointError, match="its head: loaded 2/4"):
        tats_ray.load(save(tmp_path / "odd.pth", state, args=ARGS))


def test_package_offers_load_and_nothing_that_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        tats_ray.lod  # noqa: B018
