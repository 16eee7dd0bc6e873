"""Named sizes: parameter counts of the method, and builders that leave torch's state alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tats_ray.config.schema import DataConfig, ModelConfig, SamplerConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.samplers.oracle import MotionOracle
from tats_ray.models.trajectory import TrajectoryBlock
from tats_ray.models.zoo import (
    SIZES,
    build_mae,
    build_policy,
    count_parameters,
    num_visible,
    token_grid,
)

PAPER = TokenGrid()
SMALL = TokenGrid(num_frames=4, image_size=16, patch=8)


def mae_of(**model: Any) -> MaskedAutoencoder:
    with torch.device("meta"):
        return build_mae(ModelConfig(**model), PAPER, seed=0)


def policy_of(size: Any, **sampler: Any) -> SamplerPolicy:
    with torch.device("meta"):
        policy = build_policy(SamplerConfig(**sampler), ModelConfig(size=size), PAPER, seed=0)
    assert isinstance(policy, SamplerPolicy)
    return policy


@pytest.mark.parametrize(
    ("size", "decoder_depth", "encoder", "decoder", "total"),
    [
        ("small", 0, 21_879_936, 2_149_440, 24_029_376),
        ("base", 0, 86_227_200, 7_983_744, 94_210_944),
        ("large", 4, 303_860_736, 13_921_280, 317_782_016),
        ("large", 0, 303_860_736, 39_136_256, 342_996_992),
    ],
)
def test_autoencoder_has_the_parameter_counts_of_the_method(
    size: str, decoder_depth: int, encoder: int, decoder: int, total: int
) -> None:
    mae = mae_of(size=size, decoder_depth=decoder_depth)
    assert count_parameters(mae.encoder) == encoder
    assert count_parameters(mae) - encoder == decoder
    assert count_parameters(mae) == total


@pytest.mark.parametrize(
    ("size", "sampler", "block", "block_without_bias"),
    [
        ("small", 2_375_809, 2_217_984, 2_215_680),
        ("base", 8_290_561, 8_859_648, 8_855_040),
        ("large", 14_199_809, 15_745_024, 15_738_880),
    ],
)
def test_samplers_have_the_parameter_counts_of_the_method(
    size: str, sampler: int, block: int, block_without_bias: int
) -> None:
    assert count_parameters(policy_of(size, name="adamae").sampler) == sampler
    for qkv_bias, expected in ((True, block), (False, block_without_bias)):
        only = policy_of(size, qkv_bias=qkv_bias).sampler.blocks[0]
        assert isinstance(only, TrajectoryBlock)
        assert count_parameters(only) == expected


def test_tats_base_policy_has_the_parameter_count_of_the_method() -> None:
    policy = policy_of("base")
    assert count_parameters(policy.value_head) == 198_657
    assert count_parameters(policy) == 10_263_298 == 8_859_648 + 1_204_224 + 769 + 198_657
    assert count_parameters(policy) + count_parameters(mae_of()) == 104_474_242
    assert count_parameters(policy_of("base", name="adamae").sampler) + 94_210_944 == 102_501_505


def test_every_named_size_divides_into_its_heads() -> None:
    for name, size in SIZES.items():
        assert size.width % size.num_heads == size.decoder_width % size.decoder_num_heads == 0, name
        assert size.width // size.num_heads == size.decoder_width // size.decoder_num_heads or (
            name == "huge"  # VideoMAE's heads of 80 and 64
        )


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        config = ModelConfig(size="tiny")
        policy = build_policy(SamplerConfig(actor_init="xavier"), config, SMALL, seed=seed)
        assert isinstance(policy, SamplerPolicy)
        mae = build_mae(config, SMALL, seed=seed)
        return [*mae.state_dict().values(), *policy.state_dict().values()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_builders_leave_the_global_random_state_as_it_was_and_do_not_read_it() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    mae = build_mae(ModelConfig(size="tiny"), SMALL, seed=0)
    build_policy(SamplerConfig(), ModelConfig(size="tiny"), SMALL, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build_mae(ModelConfig(size="tiny"), SMALL, seed=0)
    assert torch.equal(mae.decoder.head.weight, again.decoder.head.weight)


def test_default_depths_can_be_overridden() -> None:
    mae = build_mae(ModelConfig(size="tiny", depth=1, decoder_depth=3), SMALL, seed=0)
    assert len(mae.encoder.blocks) == 1
    assert len(mae.decoder.blocks) == 3


def test_heads_that_do_not_divide_the_width_are_refused_with_ones_that_do() -> None:
    with pytest.raises(UsageError, match=r"num_heads 5 does not divide the width 128.*try 4"):
        build_policy(SamplerConfig(num_heads=5), ModelConfig(size="tiny"), SMALL, seed=0)


@pytest.mark.parametrize("name", ["random", "tube", "frame", "multi_block", "oracle"])
def test_samplers_that_do_not_learn_have_no_network(name: Any) -> None:
    policy = build_policy(SamplerConfig(name=name), ModelConfig(size="tiny"), SMALL, seed=0)
    assert isinstance(policy, FixedPolicy)
    assert isinstance(policy, MotionOracle) == (name == "oracle")


def test_tats_without_trajectory_attention_is_adamaes_block_with_the_encoders_heads() -> None:
    config = ModelConfig(size="tiny")
    ablation = build_policy(SamplerConfig(trajectory_attention=False), config, SMALL, seed=0)
    assert isinstance(ablation, SamplerPolicy)
    assert not any(isinstance(m, TrajectoryBlock) for m in ablation.modules())
    adamae = build_policy(SamplerConfig(name="adamae"), config, SMALL, seed=0)
    assert isinstance(adamae, SamplerPolicy)
    assert ablation.state_dict().keys() == adamae.state_dict().keys()


def test_default_heads_are_the_encoders_for_tats_and_eight_for_adamae() -> None:
    heads = {}
    for name in ("tats", "adamae"):
        config = SamplerConfig(name=name)
        policy = build_policy(config, ModelConfig(size="tiny"), SMALL, seed=0)
        assert isinstance(policy, SamplerPolicy)
        heads[name] = policy.sampler.blocks[0].attn.num_heads
    assert heads == {"tats": 4, "adamae": 8}
    paper = policy_of("base").sampler.blocks[0]
    assert isinstance(paper, TrajectoryBlock)
    assert paper.attn.num_heads == 12


def test_number_of_blocks_of_a_sampler_is_the_one_asked_for() -> None:
    for name in ("tats", "adamae"):
        config = SamplerConfig(name=name, num_blocks=3)
        policy = build_policy(config, ModelConfig(size="tiny"), SMALL, seed=0)
        assert isinstance(policy, SamplerPolicy)
        assert len(policy.sampler.blocks) == 3


def test_visible_count_of_a_sampler_is_rounded_to_columns_for_tubes_alone() -> None:
    counts = {
        name: num_visible(SamplerConfig(name=name, mask_ratio=0.9), PAPER)
        for name in ("tats", "adamae", "random", "tube")
    }
    assert counts == {"tats": 156, "adamae": 156, "random": 156, "tube": 160}


def test_grid_is_cut_as_data_and_model_say() -> None:
    grid = token_grid(DataConfig(num_frames=8, image_size=64), ModelConfig(patch=8, tubelet=4))
    assert (grid.time, grid.side) == (2, 8)
