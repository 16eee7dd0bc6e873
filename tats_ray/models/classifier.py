"""What fine-tuning trains: the encoder on all tokens, and a head on their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float
from tats_ray.core.grid import TokenGrid
from tats_ray.models.head import ClassifierHead
from tats_ray.models.mae import Encoder


class DropPath(nn.Module):
    """Leaves out a block's branch for some clips, and scales the others up (stochastic depth).

    Source: Huang et al. (2016), as timm has it; but its draws come from a generator that is handed
    in, so a run repeats and continues exactly without touching the global one.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        if not self.training or self.rate == 0.0:
            return x
        assert self.generator is not None, "training needs a generator"
        keep = 1.0 - self.rate
        draw = torch.rand(len(x), 1, 1, generator=self.generator, device=x.device)
        return x * ((draw < keep) / keep).to(x.dtype)


class VideoClassifier(nn.Module):
    """Encoder without its last norm, mean over tokens, norm, linear map [method section 9].

    Parameters are `encoder.*` and, as in the VideoMAE family, `fc_norm.*` and `head.*`.

    Args:
        encoder: taken over; its norm is dropped, since the head brings its own.
        drop_path: rate of the last block; the others' rise to it from 0.
        head_scale: factor on the head's first weights.
    """

    def __init__(
        self,
        encoder: Encoder,
        grid: TokenGrid,
        num_classes: int,
        *,
        drop_path: float = 0.0,
        head_scale: float = 0.001,
    ) -> None:
        super().__init__()
        self.grid = grid
        width = encoder.patch_embed.proj.out_channels
        encoder.norm = nn.Identity()
        self.encoder = encoder
        head = ClassifierHead(width, num_classes)
        nn.init.trunc_normal_(head.head.weight, std=0.02)
        nn.init.zeros_(head.head.bias)
        with torch.no_grad():
            head.head.weight.mul_(head_scale)
        self.fc_norm, self.head = head.fc_norm, head.head
        rates = torch.linspace(0.0, drop_path, len(encoder.blocks), dtype=torch.float64).tolist()
        self._drops = [DropPath(rate) for rate in rates for _ in range(2)]
        for at, block in enumerate(encoder.blocks):
            block.drop_path1, block.drop_path2 = self._drops[2 * at : 2 * at + 2]

    @property
    def num_classes(self) -> int:
        return self.head.out_features

    def forward(
        self, pixels: Float[Tensor, "B N P"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B classes"]:
        """Logits.

        Args:
            pixels: all tokens, ImageNet-normalised.
            generator: for the draws of drop path; needed in training mode.
        """
        for drop in self._drops:
            drop.generator = generator
        x = self.encoder.patch_embed(pixels) + self.encoder.pos_embed
        for block in self.encoder.blocks:
            x = block(x)
        return self.head(self.fc_norm(x.mean(1)))
