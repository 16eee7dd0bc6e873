"""Scorers that no longer learn: from a checkpoint, or the tiny one that comes with the package."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.core.arrays import Float, Int, UInt8
from tats_ray.core.devices import find_device
from tats_ray.core.grid import TokenGrid
from tats_ray.models.mae import MaskedAutoencoder

TINY_GRID = TokenGrid(num_frames=8, image_size=24, tubelet=2, patch=4)
"""4 x 6 x 6 = 144 tokens, each as large in the scene as 16 pixels of a video of 96."""
TINY_WEIGHTS = Path(__file__).with_name("tiny_mae.safetensors")
"""float16, written by benchmarks/tiny_mae.py."""


def tiny_mae() -> MaskedAutoencoder:
    """The autoencoder that comes with the package, before its weights are loaded."""
    return MaskedAutoencoder(
        TINY_GRID,
        width=64,
        depth=3,
        num_heads=2,
        decoder_width=48,
        decoder_depth=1,
        decoder_num_heads=2,
        pos_embed="sincos_3d",
        head_init="zero",
    )


class FrozenScorer:
    """Scores selections by reconstructing clips, without learning: same input, same score."""

    is_frozen = True
    """What was once asked about a clip need not be asked again."""

    def __init__(self, mae: MaskedAutoencoder, *, mask_ratio: float = 0.9) -> None:
        self.mae = mae.eval().requires_grad_(False)
        self.grid = mae.grid
        self.width = mae.width
        self.mask_ratio = mask_ratio
        """What it was trained for."""
        self.device = next(mae.parameters()).device

    @classmethod
    def tiny(cls, *, device: str = "cpu") -> FrozenScorer:
        """The autoencoder that comes with the package: 144 tokens, synthetic clips, no download.

        Raises:
            UsageError: for a device that is not here.
        """
        where = find_device(device)
        mae = tiny_mae()
        weights = checkpoints.read_tensors(TINY_WEIGHTS)
        whole = {name: value.float() for name, value in weights.items()}
        checkpoints.load_weights(mae, whole, source=str(TINY_WEIGHTS))
        return cls(mae.to(where))

    @classmethod
    def load(cls, checkpoint: str | Path, *, device: str = "cpu") -> FrozenScorer:
        """The autoencoder of any checkpoint that has a decoder, whoever's it is.

        Raises:
            CheckpointError: when there is none, or no decoder, or its tensors do not fit.
            UsageError: for a device that is not here.
        """
        where = find_device(device)
        found = open_checkpoint(checkpoint)
        return cls(found.mae.to(where), mask_ratio=found.config.sampler.mask_ratio)

    @torch.no_grad()
    def embed(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N D"]:
        """What a policy may observe: token embeddings."""
        return self.mae.embed(clips.to(self.device))

    @torch.no_grad()
    def score(
        self, clips: UInt8[Tensor, "B C F H W"], visible_idx: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B N"]:
        """Error per token; exactly 0 where visible."""
        error: Tensor = self.mae(clips.to(self.device), visible_idx.to(self.device)).error
        return error
