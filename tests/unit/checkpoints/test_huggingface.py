"""Ours -> transformers -> ours: the same logits; random weights, biases that are not zero.

`make test-hf457` runs this file with transformers 4.57, the last of its major version that matters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from official import IMAGE_SIZE, NUM_CLASSES, NUM_FRAMES, PATCH, filled, fine_tuned, videomae
from torch import Tensor, nn

import tats_ray
from tats_ray.checkpoints.foreign_names import from_official, from_transformers, to_transformers
from tats_ray.checkpoints.huggingface import Export, write_folder
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.head import ClassifierHead
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import build_mae, build_policy
from tats_ray.ops.patches import imagenet_normalize, unpatchify

GRID = TokenGrid(num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, patch=PATCH)
MODEL = ModelConfig(size="tiny", patch=PATCH)
ATOL = 1e-5
FIXED_NORMS = ("decoder.norm", "fc_norm")
"""Norms whose eps is fixed in transformers, to 1e-5 instead of the original code's 1e-6."""

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def clips(count: int = 2) -> Tensor:
    draw = stream(0, "clips")
    return torch.randint(256, (count, *GRID.clip_shape), generator=draw, dtype=torch.uint8)


def pixel_values(mae: MaskedAutoencoder, clip: Tensor) -> Tensor:
    """What transformers is fed: normalised, frames before colours."""
    return unpatchify(imagenet_normalize(mae.pixels(clip)), GRID).transpose(1, 2)


@pytest.fixture
def mae() -> MaskedAutoencoder:
    """Random, with biases of the size of weights."""
    network = build_mae(MODEL, GRID, seed=0)
    network.load_state_dict(filled(videomae()))
    return network.eval()


@pytest.fixture
def head() -> ClassifierHead:
    part = ClassifierHead(128, NUM_CLASSES)
    state = filled(fine_tuned(), "head")
    part.load_state_dict({n: state[n] for n in part.state_dict()})
    return part


@pytest.fixture
def export(mae: MaskedAutoencoder) -> Export:
    return Export(model=MODEL, grid=GRID, mae=mae.state_dict(), origin="a test")


def classifier_logits(mae: MaskedAutoencoder, head: ClassifierHead, clip: Tensor) -> Tensor:
    mae.encoder.add_module("norm", nn.Identity())
    everything = torch.arange(GRID.num_tokens).expand(len(clip), -1)
    return head(mae.encode(mae.pixels(clip), everything))


def assert_same_logits(theirs: nn.Module, call: Callable[[], Tensor], ours: Tensor) -> None:
    """To 1e-5 of their size as it is, and to 1e-5 whatever their size once eps is the same."""
    torch.testing.assert_close(call(), ours, atol=ATOL, rtol=ATOL)
    for name, module in theirs.named_modules():
        if name in FIXED_NORMS:
            module.eps = 1e-6
    torch.testing.assert_close(call(), ours, atol=ATOL, rtol=0)


def masked_positions(visible_idx: Tensor) -> Tensor:
    hidden = torch.ones(len(visible_idx), GRID.num_tokens, dtype=torch.bool)
    return hidden.scatter(1, visible_idx, False)


def test_this_version_of_transformers_is_one_that_loads_the_biases() -> None:
    major, minor = map(int, transformers.__version__.split(".")[:2])
    assert (major, minor) == (4, 57) or (major, minor) >= (5, 18)


@torch.no_grad()
@pytest.mark.parametrize("is_normalized", [True, False])
def test_pretraining_logits_survive_the_round_trip(
    mae: MaskedAutoencoder, export: Export, tmp_path: Path, is_normalized: bool
) -> None:
    mae.normalize_targets = is_normalized
    export = replace(export, model=replace(MODEL, normalize_targets=is_normalized))
    write_folder(tmp_path / "ours", export)
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path / "ours").eval()
    visible_idx = torch.stack([torch.arange(0, 32, 4), torch.arange(3, 32, 4)])
    clip = clips()
    ours = mae(clip, visible_idx)
    masked = masked_positions(visible_idx)

    def logits() -> Tensor:
        return theirs(pixel_values(mae, clip), bool_masked_pos=masked).logits

    assert ours.prediction.std() > 0.3  # there is something to be wrong about
    assert_same_logits(theirs, logits, ours.prediction)
    expected = theirs(pixel_values(mae, clip), bool_masked_pos=masked).loss
    torch.testing.assert_close(ours.loss, expected, atol=ATOL, rtol=0)

    theirs.save_pretrained(tmp_path / "theirs")
    back = tats_ray.load(tmp_path / "theirs")
    assert "loaded 88/88, ignored 0" in back.origin
    assert back.config.model.normalize_targets is is_normalized
    again = back.mae(clip, visible_idx).prediction
    torch.testing.assert_close(again, ours.prediction, atol=ATOL, rtol=0)
    assert all(torch.equal(v, mae.state_dict()[n]) for n, v in back.mae.state_dict().items())


@torch.no_grad()
def test_classification_logits_survive_the_round_trip(
    mae: MaskedAutoencoder, head: ClassifierHead, export: Export, tmp_path: Path
) -> None:
    write_folder(tmp_path / "ours", replace(export, head=head.state_dict()))
    load = transformers.VideoMAEForVideoClassification.from_pretrained
    theirs = load(tmp_path / "ours").eval()
    clip = clips()
    values = pixel_values(mae, clip)
    ours = classifier_logits(mae, head, clip)
    assert ours.std() > 0.1
    assert_same_logits(theirs, lambda: theirs(values).logits, ours)
    assert theirs.config.id2label == {i: f"LABEL_{i}" for i in range(NUM_CLASSES)}

    theirs.save_pretrained(tmp_path / "theirs")
    back = tats_ray.load(tmp_path / "theirs")
    torch.testing.assert_close(back.classify(clip), ours, atol=ATOL, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("bias", ["q_bias", "v_bias"])
def test_the_comparison_would_notice_a_bias_that_was_lost(
    mae: MaskedAutoencoder, export: Export, tmp_path: Path, bias: str
) -> None:
    without = {n: torch.zeros_like(v) if n.endswith(bias) else v for n, v in export.mae.items()}
    write_folder(tmp_path, replace(export, mae=without))
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path).eval()
    visible_idx, clip = torch.arange(0, 32, 4).expand(2, -1), clips()
    logits = theirs(pixel_values(mae, clip), bool_masked_pos=masked_positions(visible_idx)).logits
    assert (logits - mae(clip, visible_idx).prediction).abs().max() > 1000 * ATOL


def test_norms_of_transformers_get_our_eps_where_a_file_can_say_it(
    export: Export, head: ClassifierHead, tmp_path: Path
) -> None:
    write_folder(tmp_path / "a", export)
    write_folder(tmp_path / "b", replace(export, head=head.state_dict()))
    pretraining = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    classifier = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "b")
    eps = {
        name: module.eps
        for model in (pretraining, classifier)
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    assert len(eps) == 4 * 2 + 2 * 2 + 3
    assert {value for name, value in eps.items() if name not in FIXED_NORMS} == {1e-6}
    assert [eps[name] for name in FIXED_NORMS] == [1e-5, 1e-5]


def test_every_tensor_of_transformers_is_in_the_file_under_its_safe_name(
    export: Export, head: ClassifierHead, tmp_path: Path
) -> None:
    for architecture, part in (
        (transformers.VideoMAEForPreTraining, None),
        (transformers.VideoMAEForVideoClassification, head.state_dict()),
    ):
        given = replace(export, head=part)
        names = set(to_transformers(given.mae, part or {}))
        folder = tmp_path / given.architecture
        write_folder(folder, given)
        _, report = architecture.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        biases = [name for name in names if name.endswith(("attention.q_bias", ".v_bias"))]
        assert len(biases) == 2 * (4 + 2 if part is None else 4)
        assert not any(name.endswith(("query.bias", "value.bias")) for name in names)


@pytest.mark.parametrize("alias", [False, True], ids=["q_bias", "query.bias"])
def test_names_of_transformers_are_read_in_both_spellings(alias: bool) -> None:
    state = filled(videomae())
    theirs = to_transformers(state, {})
    if alias:
        theirs = {
            name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
            for name, value in theirs.items()
        }
    back = from_transformers(theirs)
    assert back.ignored == ()
    assert back.mae.keys() == state.keys()
    assert all(torch.equal(back.mae[name], state[name]) for name in state)


def test_bare_encoder_of_transformers_is_an_encoder_only() -> None:
    state = {n: v for n, v in filled(videomae()).items() if n.startswith("encoder.")}
    bare = {n.removeprefix("videomae."): v for n, v in to_transformers(state, {}).items()}
    assert from_transformers(bare).mae.keys() == state.keys()


def test_classifier_leaves_decoder_and_last_norm_behind(head: ClassifierHead) -> None:
    theirs = to_transformers(filled(videomae()), head.state_dict())
    back = from_transformers(theirs)
    assert back.mae.keys() == from_official(filled(fine_tuned())).mae.keys()
    assert back.head.keys() == head.state_dict().keys()


def test_preprocessor_gives_the_pixels_that_we_train_on(
    mae: MaskedAutoencoder, export: Export, tmp_path: Path
) -> None:
    write_folder(tmp_path, export)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    clip = clips(1)
    frames = [frame.permute(1, 2, 0).numpy() for frame in clip[0].transpose(0, 1)]
    values = processor(frames, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(values, pixel_values(mae, clip), atol=1e-5, rtol=0)


def test_card_says_how_to_load_and_which_versions_not_to_use(
    export: Export, tmp_path: Path
) -> None:
    write_folder(tmp_path, export)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "VideoMAEForPreTraining" in card
    assert "5.8 to 5.16" in card
    assert "4 frames of 32 x 32 pixels, tokens of 2 x 8 x 8" in card


@pytest.mark.parametrize("name", ["tats", "adamae"])
def test_sampler_travels_in_files_of_its_own(export: Export, tmp_path: Path, name: str) -> None:
    config = SamplerConfig(name=name, mask_ratio=0.75, actor_init="xavier", temperature=0.5)
    policy = build_policy(config, MODEL, GRID, seed=3)
    assert isinstance(policy, SamplerPolicy)
    write_folder(tmp_path, replace(export, policy=policy.state_dict(), sampler=config))
    assert (tmp_path / "sampler.safetensors").is_file()
    assert json.loads((tmp_path / "sampler_config.json").read_text())["mask_ratio"] == 0.75
    found = open_checkpoint(tmp_path)
    assert found.config.sampler == config
    assert isinstance(found.policy, SamplerPolicy)
    tokens = found.mae.embed(clips())
    assert torch.equal(found.policy(tokens).log_prob, policy(tokens).log_prob)
    assert policy(tokens).log_prob.std() > 0


def test_other_positions_are_refused_because_no_file_could_say_them(
    export: Export, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"pos_embed 'sincos_3d'.*--model\.pos_embed sincos_1d"):
        write_folder(tmp_path / "x", replace(export, model=replace(MODEL, pos_embed="sincos_3d")))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("change", [{"model_type": "vit"}, None])
def test_folder_of_another_model_is_refused(
    export: Export, tmp_path: Path, change: dict[str, str] | None
) -> None:
    write_folder(tmp_path, export)
    (tmp_path / "config.json").write_text(json.dumps(change) if change else "{")
    with pytest.raises(UsageError, match=r"type 'vit'; only 'videomae'" if change else "cannot be"):
        tats_ray.load(tmp_path)


def heads_of(folder: Path, **changes: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: heads_of(f, num_attention_heads=8), "number of heads 8; size tiny has 4"),
        (lambda f: heads_of(f, decoder_num_attention_heads=4), "decoder heads 4; size tiny has 2"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 40), "model.safetensors cannot"),
    ],
)
def test_folder_that_does_not_fit_is_refused_by_value(
    export: Export, tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    write_folder(tmp_path, export)
    change(tmp_path)
    with pytest.raises(UsageError, match=says):
        tats_ray.load(tmp_path)
