"""The masked autoencoder: sees the visible tokens, predicts the hidden ones.

Structure and parameter names are the VideoMAE family's (`encoder.blocks.0.attn.qkv.weight`, ...),
so that its weights load here and ours load there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float, Int, Shaped, UInt8
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Reconstruction
from tats_ray.models.layers import (
    PatchEmbed,
    PosEmbed,
    init_linear,
    position_table,
    take_tokens,
    transformer_block,
)
from tats_ray.ops.patches import byte_targets, imagenet_normalize, patchify, unit_pixels
from tats_ray.ops.selection import hidden_indices

HeadInit = Literal["xavier", "zero"]


class Encoder(nn.Module):
    """Tokenizer, positions and blocks over visible tokens only."""

    pos_embed: Tensor

    def __init__(
        self, grid: TokenGrid, *, width: int, depth: int, num_heads: int, pos_embed: PosEmbed
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width, grid)
        self.register_buffer("pos_embed", position_table(pos_embed, grid, width), persistent=False)
        self.blocks = nn.ModuleList(transformer_block(width, num_heads) for _ in range(depth))
        self.norm: nn.Module = nn.LayerNorm(width, eps=1e-6)
        self.apply(init_linear)

    def forward(
        self, tokens: Float[Tensor, "B K D"], idx: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K D"]:
        x = tokens + take_tokens(self.pos_embed.expand(len(idx), -1, -1), idx)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    """Blocks over all tokens, and a linear head over the hidden ones."""

    def __init__(self, *, width: int, depth: int, num_heads: int, values_per_token: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(transformer_block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, values_per_token)
        self.apply(init_linear)

    def forward(self, x: Float[Tensor, "B N D"], num_hidden: int) -> Float[Tensor, "B M P"]:
        """Predictions for the last `num_hidden` rows."""
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -num_hidden:]))


class MaskedAutoencoder(nn.Module):
    """Encoder, projection and decoder. Clips stay uint8 until they are cut into patches.

    Source: method sections 3 and 4; sizes in `models.zoo`.

    Args:
        normalize_targets: predict each patch and colour at mean 0 and deviation 1, as the paper
            does; False predicts pixels in [0, 1].
    """

    decoder_pos_embed: Tensor

    def __init__(
        self,
        grid: TokenGrid,
        *,
        width: int,
        depth: int,
        num_heads: int,
        decoder_width: int,
        decoder_depth: int,
        decoder_num_heads: int,
        pos_embed: PosEmbed = "sincos_1d",
        head_init: HeadInit = "xavier",
        normalize_targets: bool = True,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.width = width
        self.normalize_targets = normalize_targets
        self.encoder = Encoder(
            grid, width=width, depth=depth, num_heads=num_heads, pos_embed=pos_embed
        )
        self.encoder_to_decoder = nn.Linear(width, decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.register_buffer(
            "decoder_pos_embed", position_table(pos_embed, grid, decoder_width), persistent=False
        )
        self.decoder = Decoder(
            width=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
            values_per_token=grid.values_per_token,
        )
        if head_init == "zero":
            nn.init.zeros_(self.decoder.head.weight)

    def pixels(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N P"]:
        """Clips cut into tokens of values in [0, 1], float32."""
        return unit_pixels(patchify(clips, self.grid))

    def targets(self, patches: UInt8[Tensor, "B M P"]) -> Float[Tensor, "B M P"]:
        """What the decoder is to predict of each of the given tokens, float32."""
        return byte_targets(patches) if self.normalize_targets else unit_pixels(patches)

    @torch.no_grad()
    def embed(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N D"]:
        """Embeddings of all tokens, without positions or gradient: what a policy observes."""
        return self.encoder.patch_embed(imagenet_normalize(self.pixels(clips)))

    def encode(
        self, patches: Shaped[Tensor, "B N P"], visible_idx: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K D"]:
        """Latents of the visible tokens, in the order of `visible_idx`.

        Args:
            patches: bytes, or values in [0, 1].
        """
        shown = imagenet_normalize(unit_pixels(take_tokens(patches, visible_idx)))
        return self.encoder(self.encoder.patch_embed(shown), visible_idx)

    def predict(
        self,
        latents: Float[Tensor, "B K D"],
        visible_idx: Int[Tensor, "B K"],
        hidden_idx: Int[Tensor, "B M"],
    ) -> Float[Tensor, "B M P"]:
        """Predictions for these hidden tokens; the decoder sees no others."""
        table = self.decoder_pos_embed.expand(len(visible_idx), -1, -1)
        shown = self.encoder_to_decoder(latents) + take_tokens(table, visible_idx)
        hidden = self.mask_token + take_tokens(table, hidden_idx)
        x = torch.cat([shown, hidden.to(shown.dtype)], dim=1)
        return self.decoder(x, hidden_idx.shape[1])

    def forward(
        self,
        clips: UInt8[Tensor, "B C F H W"],
        visible_idx: Int[Tensor, "B K"],
        hidden_idx: Int[Tensor, "B M"] | None = None,
    ) -> Reconstruction:
        """Reconstruct each clip from its visible tokens, given in any order.

        Args:
            hidden_idx: the hidden tokens to decode, ascending; default: all.
        """
        visible_idx = visible_idx.sort(dim=1).values
        if hidden_idx is None:
            hidden_idx = hidden_indices(visible_idx, self.grid.num_tokens)
        # Bytes until they are needed: a quarter of the memory, and fewer tokens to convert.
        patches = patchify(clips, self.grid)
        prediction = self.predict(self.encode(patches, visible_idx), visible_idx, hidden_idx)
        # Targets and error in float32 whatever the network runs in: half precision would
        # amplify the round-off of flat patches by a million.
        with torch.autocast(clips.device.type, enabled=False):
            targets = self.targets(take_tokens(patches, hidden_idx))
            prediction = prediction.float()
            hidden_error = (prediction - targets).square().mean(-1)
        error = torch.zeros(patches.shape[:2], device=patches.device)
        return Reconstruction(prediction, hidden_idx, error.scatter(1, hidden_idx, hidden_error))
