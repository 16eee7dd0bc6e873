from __future__ import annotations

import pytest
import torch
from torch import nn

from tats_ray.config.schema import ModelConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.classifier import DropPath, VideoClassifier
from tats_ray.models.head import ClassifierHead
from tats_ray.models.probe_heads import raw_tokens
from tats_ray.models.zoo import build_classifier, build_mae, count_parameters

GRID = TokenGrid(num_frames=4, image_size=16, tubelet=2, patch=8)
TINY = ModelConfig(size="tiny", patch=8, depth=3)


def classifier(drop_path: float = 0.0, head_scale: float = 1.0) -> VideoClassifier:
    return build_classifier(TINY, GRID, 5, drop_path=drop_path, head_scale=head_scale, seed=0)


def noise(count: int = 4) -> torch.Tensor:
    shape = (count, GRID.num_tokens, GRID.values_per_token)
    return torch.randn(shape, generator=stream(0, "noise"))


def test_base_classifiers_have_the_parameter_counts_of_the_method() -> None:
    grid = TokenGrid()
    encoder = build_mae(ModelConfig(), grid, seed=0).encoder
    for num_classes, count in (
        (51, 86_266_419),
        (101, 86_304_869),
        (174, 86_361_006),
        (400, 86_534_800),
    ):
        assert count_parameters(VideoClassifier(encoder, grid, num_classes)) == count


def test_logits_are_the_head_on_the_raw_tokens() -> None:
    network = classifier().eval()
    head = ClassifierHead(128, 5)
    head.fc_norm, head.head = network.fc_norm, network.head
    with torch.no_grad():
        torch.testing.assert_close(network(noise()), head(raw_tokens(network.encoder, noise())))


def test_head_starts_so_small_that_all_classes_are_alike() -> None:
    network = classifier(head_scale=0.001).eval()
    assert 0 < network.head.weight.std().item() < 3e-5
    assert network.head.bias.abs().max() == 0
    assert network(noise()).softmax(-1).sub(0.2).abs().max() < 1e-3


def test_drop_path_keeps_the_mean_and_drops_whole_clips() -> None:
    drop = DropPath(0.4)
    drop.generator = stream(0, "drop")
    found = drop(torch.ones(20_000, 2, 3))
    rows = found.flatten(1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert (rows[:, 0] == 0).double().mean().item() == pytest.approx(0.4, abs=0.02)
    assert found.mean().item() == pytest.approx(1.0, abs=0.03)


def test_drop_path_rises_from_0_to_its_rate_and_takes_no_part_in_evaluation() -> None:
    network = classifier(drop_path=0.2)
    rates = [(block.drop_path1.rate, block.drop_path2.rate) for block in network.encoder.blocks]
    assert [r for pair in rates for r in pair] == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2])
    plain = classifier()
    assert torch.equal(network.eval()(noise()), plain.eval()(noise()))


def test_draws_come_from_the_generator_alone() -> None:
    network = classifier(drop_path=0.9).train()
    before = torch.get_rng_state()
    one = network(noise(), stream(0, "one"))
    assert torch.equal(network(noise(), stream(0, "one")), one)
    assert not torch.equal(network(noise(), stream(0, "two")), one)
    assert torch.equal(torch.get_rng_state(), before)


def test_same_seed_gives_the_same_weights_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    one, again = classifier().state_dict(), classifier().state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(name.startswith("encoder.norm") for name in one)
    assert isinstance(classifier().encoder.norm, nn.Identity)
