"""Named sizes, and the builders that turn a configuration into networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from tats_ray.config.finetune_schema import FinetuneConfig, model_config, token_grid_of
from tats_ray.config.schema import DataConfig, ModelConfig, SamplerConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import derive
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import SamplerPolicy, is_learned
from tats_ray.models.samplers.registry import find_sampler


class Size(NamedTuple):
    """Widths, depths and heads of an autoencoder."""

    width: int
    depth: int
    num_heads: int
    decoder_width: int
    decoder_depth: int
    decoder_num_heads: int


SIZES: Mapping[str, Size] = {
    # For CPUs and tests; heads keep 32 channels.
    "tiny": Size(128, 4, 4, 64, 2, 2),
    # VideoMAE's sizes [method section 1]; decoder depth 4 is the paper's flag for ViT-B.
    "small": Size(384, 12, 6, 192, 4, 3),
    "base": Size(768, 12, 12, 384, 4, 6),
    "large": Size(1024, 24, 16, 512, 12, 8),
    "huge": Size(1280, 32, 16, 640, 12, 8),
}


def token_grid(data: DataConfig, model: ModelConfig) -> TokenGrid:
    return TokenGrid(
        num_frames=data.num_frames,
        image_size=data.image_size,
        tubelet=model.tubelet,
        patch=model.patch,
    )


def build_mae(model: ModelConfig, grid: TokenGrid, *, seed: int) -> MaskedAutoencoder:
    """The autoencoder of a named size; the same seed gives the same weights."""
    size = SIZES[model.size]
    with _seeded(derive(seed, "init", "mae")):
        return MaskedAutoencoder(
            grid,
            width=size.width,
            depth=model.depth or size.depth,
            num_heads=size.num_heads,
            decoder_width=size.decoder_width,
            decoder_depth=model.decoder_depth or size.decoder_depth,
            decoder_num_heads=size.decoder_num_heads,
            pos_embed=model.pos_embed,
            head_init=model.head_init,
            normalize_targets=model.normalize_targets,
        )


def build_classifier(
    model: ModelConfig,
    grid: TokenGrid,
    num_classes: int,
    *,
    drop_path: float = 0.0,
    head_scale: float = 0.001,
    seed: int,
) -> VideoClassifier:
    """What fine-tuning trains, of a named size; the same seed gives the same weights."""
    encoder = build_mae(model, grid, seed=seed).encoder
    with _seeded(derive(seed, "init", "head")):
        return VideoClassifier(
            encoder, grid, num_classes, drop_path=drop_path, head_scale=head_scale
        )


def build_policy(
    sampler: SamplerConfig, model: ModelConfig, grid: TokenGrid, *, seed: int
) -> MaskPolicy:
    """The mask policy that `sampler.name` asks for; the same seed gives the same weights."""
    size = SIZES[model.size]
    with _seeded(derive(seed, "init", "policy")):
        return find_sampler(sampler).build(sampler, grid, size.width, size.num_heads)


def build_learned_policy(
    sampler: SamplerConfig, model: ModelConfig, grid: TokenGrid, *, seed: int
) -> SamplerPolicy:
    """`build_policy` where the sampler is known to learn."""
    policy = build_policy(sampler, model, grid, seed=seed)
    assert is_learned(policy), sampler.name
    return policy


def num_visible(sampler: SamplerConfig, grid: TokenGrid, mask_ratio: float | None = None) -> int:
    """Visible tokens of a clip, under another ratio than the configured one where one is given."""
    ratio = sampler.mask_ratio if mask_ratio is None else mask_ratio
    return find_sampler(sampler).num_visible(ratio, grid)


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Network constructors draw from torch's global stream; lend them a seeded one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def new_classifier(config: FinetuneConfig) -> VideoClassifier:
    """Freshly drawn weights."""
    return build_classifier(
        model_config(config),
        token_grid_of(config),
        config.data.num_classes,
        drop_path=config.optim.drop_path,
        head_scale=config.optim.head_scale,
        seed=config.seed,
    )
