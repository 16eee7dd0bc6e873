"""Checkpoints in the official naming, made from its rules: nothing is missing, each is named."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import official
import pytest
import torch
from official import (
    NUM_CLASSES,
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
from torch.nn import functional

from tats_ray.checkpoints.fitting import (
    ENOUGH,
    compare,
    fit,
    in_order,
    num_stored,
    require_fit,
    same_tokens,
)
from tats_ray.checkpoints.foreign_files import Shape, named_size, read_foreign
from tats_ray.checkpoints.foreign_names import from_official, to_official
from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.errors import CheckpointError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.head import ClassifierHead
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import SIZES, build_mae, build_policy

GRID = TokenGrid(num_frames=4, image_size=32, patch=PATCH)
MODEL = ModelConfig(size="tiny", patch=PATCH)
OFFICIAL = Namespace(traj_attention="True", mask_ratio=0.9)
V2 = Namespace(decoder_mask_ratio=0.5, num_frames=16)


def test_the_rules_give_the_published_numbers_of_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ViT-B [method section 11]."""
    base = {"WIDTH": 768, "DEPTH": 12, "DECODER_WIDTH": 384, "DECODER_DEPTH": 4, "PATCH": 16}
    for name, value in {**base, "NUM_TOKENS": 1568, "NUM_CLASSES": 101}.items():
        monkeypatch.setattr(official, name, value)
    counts = [
        sum(torch.Size(shape).numel() for shape in shapes().values())
        for shapes in (videomae, adamae, fine_tuned)
    ]
    assert counts == [94_210_944, 102_501_505, 86_304_869]


@pytest.mark.parametrize("shapes", [videomae, adamae], ids=["VideoMAE", "AdaMAE"])
def test_official_state_dict_loads_with_nothing_missing(shapes: object) -> None:
    state = filled(shapes())
    named = from_official(state)
    assert named.ignored == ()
    mae = build_mae(MODEL, GRID, seed=1)
    assert str(fit(mae, named.mae)) == "loaded 88/88, ignored 0"
    assert all(torch.equal(value, state[name]) for name, value in mae.state_dict().items())


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_published_sizes_have_the_number_of_tensors_that_the_rules_say(size: str) -> None:
    """A block has 13 tensors; two belong to each of embedding, norms and head, one to the rest."""
    depth, decoder_depth = SIZES[size].depth, SIZES[size].decoder_depth
    with torch.device("meta"):
        names = build_mae(ModelConfig(size=size), TokenGrid(), seed=0).state_dict()
    assert len(names) == 13 * (depth + decoder_depth) + 2 * 4 + 2
    assert from_official(names).mae.keys() == names.keys()


def adamae_logits(state: State, tokens: Tensor) -> Tensor:
    """AdaMAE's sampler by hand [method section 6]: position code, block of 8 heads, linear."""
    own = {n.removeprefix("encoder.get_token_probs."): v for n, v in state.items()}
    x = tokens + state["encoder.pos_embed_probs"]
    y = functional.layer_norm(x, (WIDTH,), own["0.norm1.weight"], own["0.norm1.bias"], 1e-5)
    q, k, v = (
        (y @ part.T).unflatten(-1, (8, WIDTH // 8)).transpose(1, 2)
        for part in own["0.attn.qkv.weight"].chunk(3)
    )
    weights = (q @ k.transpose(-1, -2) * (WIDTH // 8) ** -0.5).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).flatten(2)
    x = x + mixed @ own["0.attn.proj.weight"].T + own["0.attn.proj.bias"]
    y = functional.layer_norm(x, (WIDTH,), own["0.norm2.weight"], own["0.norm2.bias"], 1e-5)
    y = functional.gelu(y @ own["0.mlp.fc1.weight"].T + own["0.mlp.fc1.bias"])
    x = x + y @ own["0.mlp.fc2.weight"].T + own["0.mlp.fc2.bias"]
    return (x @ own["1.weight"].T + own["1.bias"]).squeeze(-1)


@torch.no_grad()
def test_sampler_of_adamae_prefers_here_what_it_prefers_there() -> None:
    state = filled(adamae())
    policy = build_policy(SamplerConfig(name="adamae"), MODEL, GRID, seed=0)
    assert isinstance(policy, SamplerPolicy)
    found = fit(policy, from_official(state).sampler, only="sampler.")
    assert str(found) == "loaded 14/14, ignored 0"
    tokens = torch.randn(2, NUM_TOKENS, WIDTH, generator=stream(0, "tokens"))
    there = adamae_logits(state, tokens).log_softmax(-1)
    assert there.std() > 0.1
    torch.testing.assert_close(policy(tokens).log_prob, there, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shapes", [videomae, adamae, fine_tuned])
def test_official_names_come_back_as_they_were(shapes: object) -> None:
    state = filled(shapes())
    named = from_official(state)
    back = to_official(named.mae, named.sampler, named.head)
    assert back.keys() == state.keys()
    assert all(back[name] is state[name] for name in state)


@pytest.mark.parametrize(
    ("shapes", "others", "kind", "decoder", "tokens", "classes"),
    [
        (videomae, {}, "VideoMAE, pre-training", 64, None, None),
        (adamae, {}, "AdaMAE, pre-training", 64, NUM_TOKENS, None),
        (fine_tuned, {}, "VideoMAE, fine-tuned", None, None, NUM_CLASSES),
        (encoder_only, {}, "encoder only, VideoMAE's names", None, None, None),
        (videomae, {"args": V2}, "VideoMAEv2, pre-training", 64, None, None),
        (adamae, {"args": OFFICIAL}, "TATS official, pre-training", 64, NUM_TOKENS, None),
    ],
)
def test_file_is_named_by_what_it_holds(
    tmp_path: Path,
    shapes: object,
    others: dict[str, object],
    kind: str,
    decoder: int | None,
    tokens: int | None,
    classes: int | None,
) -> None:
    state = filled(shapes())
    found = read_foreign(save(tmp_path / "some.pth", state, **others))
    assert found.kind == kind
    assert found.shape == Shape(
        width=128,
        depth=4,
        patch=8,
        tubelet=2,
        decoder_width=decoder,
        decoder_depth=decoder and 2,
        num_tokens=tokens,
        num_classes=classes,
    )
    assert found.num_tensors == len(state)
    assert found.num_parameters == sum(value.numel() for value in state.values())


def test_weights_of_a_deepspeed_release_are_videomae_v2(tmp_path: Path) -> None:
    torch.save({"module": filled(fine_tuned())}, tmp_path / "v2.pth")
    assert read_foreign(tmp_path / "v2.pth").kind == "VideoMAEv2, fine-tuned"


def test_encoder_that_keeps_its_prefix_is_an_encoder_only(tmp_path: Path) -> None:
    state = {n: v for n, v in filled(videomae()).items() if n.startswith("encoder.")}
    assert read_foreign(save(tmp_path / "e.pth", state)).kind == "encoder only, VideoMAE's names"


@pytest.mark.parametrize(
    "state",
    [
        {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        {"patch_embed.proj.weight": torch.zeros(768, 3, 16, 16), "blocks.0.a": torch.zeros(1)},
        {"patch_embed.proj.weight": torch.zeros(768, 3, 2, 16, 16)},
    ],
    ids=["ResNet", "image model", "no blocks"],
)
def test_other_models_are_unknown(tmp_path: Path, state: State) -> None:
    found = read_foreign(save(tmp_path / "other.pth", state))
    assert (found.kind, found.shape) == ("unknown", None)


def test_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint: neither a run of tats_ray"):
        read_foreign(tmp_path)


def test_fit_counts_names_and_leaves_alone_what_does_not_fit() -> None:
    state = filled(videomae())
    state["decoder.head.weight"] = torch.zeros(7, 64)
    state["extra"] = torch.zeros(1)
    del state["mask_token"]
    mae = build_mae(MODEL, GRID, seed=1)
    before = mae.decoder.head.weight.clone()
    found = fit(mae, state, ignored=3)
    assert str(found) == "loaded 86/88, ignored 4"
    assert found.missing == ("mask_token",)
    assert found.reshaped[0].startswith("decoder.head.weight (7, 64) in the file, (384, 64) in")
    assert torch.equal(mae.decoder.head.weight, before)
    assert torch.equal(mae.encoder.norm.weight, state["encoder.norm.weight"])
    require_fit(found, source="here", way_out="")


def test_whole_numbers_are_not_loaded_for_weights() -> None:
    """They are codes of a quantized tensor, and mean nothing without its scale."""
    state = filled(videomae())
    state["mask_token"] = torch.ones(1, 1, 64, dtype=torch.int8)
    mae = build_mae(MODEL, GRID, seed=1)
    before = mae.mask_token.clone()
    found = fit(mae, state)
    assert found.reshaped == ("mask_token (1, 1, 64) int8 in the file, (1, 1, 64) in the model",)
    assert str(found) == "loaded 87/88, ignored 0"
    assert torch.equal(mae.mask_token, before)


def test_comparison_says_what_a_fit_would_and_loads_nothing() -> None:
    state = {n: v for n, v in filled(adamae()).items() if n != "mask_token"}
    with torch.device("meta"):
        hollow = build_mae(MODEL, GRID, seed=1)
    found = compare(hollow, state, ignored=2)
    assert found == fit(build_mae(MODEL, GRID, seed=1), state, ignored=2)
    assert str(found) == "loaded 87/88, ignored 16"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("encoder.blocks.99999999.norm1.weight", "encoder.blocks.99999999 but no encoder.blocks.4"),
        ("decoder.blocks.3.norm1.weight", "decoder.blocks.3 but no decoder.blocks.2"),
    ],
)
def test_blocks_with_a_gap_are_refused_by_number(name: str, says: str) -> None:
    state = filled(videomae())
    in_order(state, "a.pth")
    with pytest.raises(CheckpointError, match=f"a.pth has {says}; use a complete checkpoint"):
        in_order({**state, name: torch.ones(128)}, "a.pth")


def test_values_that_share_memory_count_once() -> None:
    whole = torch.zeros(3, 4)
    assert num_stored({"a": whole, "b": whole[1:], "c": whole.T}) == 12
    assert num_stored({"a": whole, "b": torch.zeros(5, dtype=torch.float16)}) == 17


@pytest.mark.parametrize(("missing", "is_enough"), [(4, True), (5, False)])
def test_less_than_95_percent_is_refused_with_names(missing: int, is_enough: bool) -> None:
    state = filled(videomae())
    assert (88 - missing >= ENOUGH * 88) == is_enough  # 4 of 88 are 4.5 %
    for name in sorted(state)[:missing]:
        del state[name]
    found = fit(build_mae(MODEL, GRID, seed=1), state)
    if is_enough:
        require_fit(found, source="a.pth", way_out="do this")
        return
    with pytest.raises(CheckpointError) as refusal:
        require_fit(found, source="a.pth", way_out="do this")
    assert str(refusal.value).startswith("a.pth: loaded 83/88, ignored 0, under 95%: 5 missing (")
    assert str(refusal.value).endswith(", ...); do this")


def test_tokens_of_another_size_are_refused_by_value() -> None:
    weights = filled(videomae(patch=16))
    same_tokens(weights, width=128, patch=16, tubelet=2, source="a.pth")
    for width, patch, tubelet in ((128, 8, 2), (128, 16, 1), (384, 16, 2)):
        with pytest.raises(CheckpointError) as refusal:
            same_tokens(weights, width=width, patch=patch, tubelet=tubelet, source="a.pth")
        assert str(refusal.value).startswith(
            f"a.pth has tokens of 2 frames by 16 pixels and width 128, the model of {tubelet} by "
            f"{patch} and width {width}; set"
        )


@pytest.mark.parametrize(
    ("change", "heads", "says"),
    [
        ({"width": 1408}, (None, None), "width 1408, which matches no size: tiny 128, small 384"),
        ({"decoder_width": 512}, (None, None), "decoder width 512; size tiny has 64"),
        ({}, (8, None), "number of heads 8; size tiny has 4"),
    ],
)
def test_model_of_no_named_size_is_refused_by_value(
    change: dict[str, int], heads: tuple[int | None, int | None], says: str
) -> None:
    shape = {"width": 128, "depth": 4, "patch": 8, "tubelet": 2, "decoder_width": 64,
             "decoder_depth": 2, "num_tokens": None, "num_classes": None}  # fmt: skip
    assert named_size(Shape(**shape), "a.pth", (4, 2)) == "tiny"
    with pytest.raises(CheckpointError, match=says):
        named_size(Shape(**{**shape, **change}), "a.pth", heads)


@torch.no_grad()
def test_head_reads_the_norm_of_the_mean_token() -> None:
    """Worked out by hand: the mean is (1, 3), its norm (-1, 1)."""
    head = ClassifierHead(2, 3)
    head.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    head.head.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
    tokens = torch.tensor([[[0.0, 2.0], [2.0, 4.0]]])
    torch.testing.assert_close(head.pool(tokens), torch.tensor([[-1.0, 1.0]]))
    torch.testing.assert_close(head(tokens), torch.tensor([[-1.0, 1.0, 0.5]]))
    assert set(head.state_dict()) == {n for n in fine_tuned() if n.startswith(("fc_norm", "head"))}
