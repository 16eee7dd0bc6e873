"""`tats_ray.load`: any form of checkpoint encodes and classifies clips."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

import tats_ray
from tats_ray.checkpoints.describe import inspect
from tats_ray.checkpoints.export_hf import export_hf
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import restore
from tats_ray.config.encoder_flags import ClipSize
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.data.decode import probe
from tats_ray.data.synthetic import synthesize
from tats_ray.evaluation.show_masks import show_masks
from tats_ray.models.policy import SamplerPolicy
from tests.official import (
    IMAGE_SIZE,
    NUM_TOKENS,
    adamae,
    encoder_only,
    filled,
    fine_tuned,
    save,
    videomae,
)
from tests.random_checkpoints import ARGS, SIZES, clips, converted, official, own_run


def test_too_little_of_an_encoder_is_refused_by_load(tmp_path: Path) -> None:
    state = {n: v for n, v in filled(encoder_only()).items() if "mlp" not in n}
    source = save(tmp_path / "thin.pth", state, args=ARGS)
    with pytest.raises(
        CheckpointError,
        match=r"loaded 40/88.*less than 95% of its encoder fits; 16 tensors without a match",
    ):
        tats_ray.load(source)


def test_masks_of_an_official_checkpoint_are_drawn_without_converting(tmp_path: Path) -> None:
    source, _ = official(tmp_path, adamae)
    made = synthesize(tmp_path / "v", num_train=2, num_val=2, num_frames=16, size=32, workers=1)
    video = next(made.train_list.parent.rglob("*.mp4"))
    assert show_masks(source, video, tmp_path / "masks.png").stat().st_size > 1000
    features = tats_ray.load(source).encode(video)
    assert features.shape == (1, 128)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize(
    ("sampler", "rival", "shown", "rivals"),
    [
        ("tube", None, 10, 10),
        ("tats", "tube", 9, 10),
        ("tube", "tats", 10, 9),
        ("tats", None, 9, 9),
    ],
)
def test_masks_under_another_ratio_are_rounded_as_each_sampler_does(
    sampler: str,
    rival: str | None,
    shown: int,
    rivals: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 2 x 4 x 4 tokens, 0.7 hides int(11.2) tubes, and shows floor(9.6) tokens elsewhere."""
    assert NUM_TOKENS == 32
    made = synthesize(tmp_path / "v", num_train=1, num_val=1, num_frames=16, size=32, workers=1)
    panels = []
    monkeypatch.setattr("tats_ray.evaluation.show_masks._write", lambda p, out: panels.append(p))
    show_masks(
        own_run(tmp_path / "main", sampler=sampler),
        next(made.train_list.parent.rglob("*.mp4")),
        tmp_path / "masks.png",
        compare=None if rival is None else own_run(tmp_path / "rival", sampler=rival),
        mask_ratio=0.7,
    )
    (panel,) = panels
    assert f"{shown} of 32 tokens visible" in panel.title
    assert int(panel.other_visible.sum()) == rivals


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and a video."""
    folder = tmp_path_factory.mktemp("scene")
    made = synthesize(folder / "v", num_train=1, num_val=1, num_frames=16, size=32, workers=1)
    return own_run(folder / "run"), next(made.train_list.parent.rglob("*.mp4"))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.mp4", "a.SVG"])
def test_masks_are_written_to_the_named_file_and_no_other(
    name: str, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    """The endings decide the form; of the animations each time slot is a picture."""
    out = tmp_path / "new" / name
    assert show_masks(*scene, out) == out
    assert list(out.parent.iterdir()) == [out]
    if name == "a.gif":
        with Image.open(out) as picture:
            assert (picture.n_frames, picture.info["loop"]) == (2, 0)
    if name == "a.mp4":
        info = probe(str(out))
        assert (info.num_frames, info.codec, info.height % 2, info.width % 2) == (2, "h264", 0, 0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("masks", r"masks has no ending, .*; use \.png, \.jpg, .*, \.gif, \.mp4$"),
        ("a.webm", r"a\.webm ends in \.webm, .*; use \.png"),
        (".", r"is a folder; name a file in it, such as .*/masks\.png"),
        ("file/a.png", r"folder .*file cannot be made .*; use another --out"),
    ],
)
def test_masks_that_cannot_be_written_are_refused_before_anything_is(
    name: str, says: str, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=says):
        show_masks(*scene, tmp_path / name)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_masks_never_replace_the_video(scene: tuple[Path, Path]) -> None:
    before = scene[1].read_bytes()
    with pytest.raises(UsageError, match="is the video itself; use another name"):
        show_masks(*scene, scene[1])
    assert scene[1].read_bytes() == before


def test_compared_checkpoints_of_one_run_are_told_apart(
    scene: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels = []
    monkeypatch.setattr("tats_ray.evaluation.show_masks._write", lambda p, out: panels.append(p))
    run = own_run(own_run(tmp_path / "twice"), step=9)
    saved = run / "checkpoints"
    show_masks(
        saved / "step_00000009",
        scene[1],
        tmp_path / "masks.png",
        compare=saved / "step_00000007",
    )
    assert panels[0].label == "mask: tats, run twice, step 9"
    assert panels[0].other_label == "mask: tats, run twice, step 7"
    source, _ = official(tmp_path, adamae)
    show_masks(saved, scene[1], tmp_path / "masks.png", compare=source)
    assert panels[1].other_label == "mask: adamae, official.pth, AdaMAE, pre-training"


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


def test_package_offers_load_and_nothing_that_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        tats_ray.lod  # noqa: B018


def as_array(pixels: torch.Tensor) -> np.ndarray:
    """As a video library or an image library gives it, colours last."""
    return rearrange(pixels, "... c f h w -> ... f h w c").numpy()


def test_numpy_arrays_are_encoded_as_the_tensors_of_the_same_pixels(tmp_path: Path) -> None:
    model = tats_ray.load(own_run(tmp_path / "run"))
    expected = model.encode(clips())
    array = as_array(clips())
    array.setflags(write=False)
    assert torch.equal(model.encode(array), expected)
    torch.testing.assert_close(model.encode(array[0]), expected[:1])
    reversed_twice = np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    assert torch.equal(model.encode(reversed_twice), expected)


def test_arrays_that_do_not_fit_are_refused_with_the_shape_that_does(tmp_path: Path) -> None:
    model = tats_ray.load(own_run(tmp_path / "run"))
    array = as_array(clips())
    for wrong in (array / 255, array[0, 0], array[:, :2], array.transpose(0, 4, 1, 2, 3)):
        with pytest.raises(UsageError) as caught:
            model.encode(wrong)
        assert str(caught.value) == (
            f"clip is {wrong.dtype} of shape {wrong.shape}; this model takes uint8 of shape "
            "(4, 32, 32, 3), or a batch of them (frames, height, width, colour)"
        )
    with pytest.raises(UsageError, match="clip is a list; give a video file, a numpy array or a"):
        model._clips([array])


@pytest.mark.parametrize("sampler", ["tats", "tube"])
def test_mask_of_a_clip_is_the_one_that_show_masks_draws(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = synthesize(tmp_path / "v", num_train=1, num_val=1, num_frames=16, size=32, workers=1)
    video = next(made.train_list.parent.rglob("*.mp4"))
    panels = []
    monkeypatch.setattr("tats_ray.evaluation.show_masks._write", lambda p, out: panels.append(p))
    run = own_run(tmp_path / "run", sampler=sampler)
    show_masks(run, video, tmp_path / "masks.png")
    model = tats_ray.load(run)
    drawn = model.mask(video)
    assert drawn.visible_idx.shape == (1, 8)
    assert drawn.probability.shape == (1, NUM_TOKENS)
    torch.testing.assert_close(drawn.probability.sum(1), torch.ones(1))
    shape = (model.grid.time, model.grid.side, model.grid.side)
    np.testing.assert_allclose(panels[0].probability, drawn.probability.reshape(shape), rtol=1e-5)
    assert set(np.flatnonzero(panels[0].visible)) == set(drawn.visible_idx[0].tolist())


def test_mask_takes_a_batch_a_ratio_and_a_seed(tmp_path: Path) -> None:
    model = tats_ray.load(own_run(tmp_path / "run"))
    drawn = model.mask(as_array(clips()), mask_ratio=0.5)
    assert drawn.visible_idx.shape == (2, 16)
    assert torch.equal(drawn.visible_idx, model.mask(clips(), mask_ratio=0.5).visible_idx)
    other = model.mask(clips(), mask_ratio=0.5, seed=1)
    assert torch.equal(other.probability, drawn.probability)
    assert not torch.equal(other.visible_idx, drawn.visible_idx)
    with pytest.raises(UsageError, match=r"mask ratio 1\.5 is outside \(0, 1\)"):
        model.mask(clips(), mask_ratio=1.5)


def test_device_is_chosen_where_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    assert tats_ray.load(run, device="cpu").encode(clips()).device.type == "cpu"
    with pytest.raises(UsageError, match=r"^device 'cuda:99' is not available; this machine has"):
        tats_ray.load(run, device="cuda:99")
