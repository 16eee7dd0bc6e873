"""Eight clips can be learned by heart: the whole of autoencoder, targets and optimiser works."""

from __future__ import annotations

import torch

from tats_ray.config.schema import ModelConfig, OptimConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.zoo import build_mae
from tats_ray.training.mae_learner import MAELearner


def test_tiny_autoencoder_learns_eight_clips_by_heart() -> None:
    grid = TokenGrid(num_frames=4, image_size=32, tubelet=2, patch=8)  # 32 tokens
    coarse = torch.rand(8, 3, 2, 8, 8, generator=stream(0, "clips"))
    clips = torch.nn.functional.interpolate(coarse, grid.clip_shape[1:], mode="trilinear")
    clips = (clips * 255).to(torch.uint8)
    model = ModelConfig(size="tiny", pos_embed="sincos_3d", head_init="zero", patch=8)
    learner = MAELearner(
        build_mae(model, grid, seed=0),
        OptimConfig(base_lr=2e-3, warmup_epochs=1, betas=(0.9, 0.95)),
        steps_per_epoch=20,
        total_steps=320,
        global_batch=256,
    )
    policy = FixedPolicy(grid)
    visible = grid.num_visible(0.5)
    losses = []
    for step in range(320):
        tokens = torch.zeros(8, grid.num_tokens, 1)
        drawn = policy.act(tokens, visible, generator=stream(0, "draw", step))
        losses.append(learner.learn(clips, drawn.visible_idx).loss)
    assert losses[0] > 0.9
    assert sum(losses[-10:]) / 10 < 0.3
