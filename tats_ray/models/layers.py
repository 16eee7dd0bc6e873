"""Transformer blocks and position tables.

The block is timm's BEiT block: pre-norm attention with a query and a value bias but no key bias,
then a GELU MLP. Its parameter names are those of the VideoMAE family, so weights travel.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from einops import rearrange
from timm.layers import Mlp
from timm.models.beit import Block as BeitBlock
from torch import Tensor, nn
from torch.nn import functional

from tats_ray.core.arrays import Float, Int, Shaped
from tats_ray.core.grid import TokenGrid

PosEmbed = Literal["sincos_1d", "sincos_3d"]

__all__ = [
    "Block",
    "Mlp",
    "PatchEmbed",
    "init_linear",
    "position_table",
    "take_tokens",
    "transformer_block",
    "written_out",
]

_FEW_KEYS, _FEW_SCORES = 400, 2**23
"""Below both, a CPU trains in bfloat16 faster with scores that are written out."""


def attend(
    query: Float[Tensor, "... n d"], key: Float[Tensor, "... m d"], value: Float[Tensor, "... m d"]
) -> Float[Tensor, "... n d"]:
    """Softmax attention by the kernel that is fastest for the size, the type and the device.

    That is torch's own, with one exception. Its backward pass for CPUs does not use the matrix
    units in bfloat16: with 78 tokens it takes three times as long as products of matrices.
    """
    keys = key.shape[-2]
    is_small = keys <= _FEW_KEYS and query.shape[:-1].numel() * keys <= _FEW_SCORES
    is_half_on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if is_small and is_half_on_cpu and torch.is_grad_enabled():
        return written_out(query, key, value)
    return functional.scaled_dot_product_attention(query, key, value)


def written_out(
    query: Float[Tensor, "... n d"], key: Float[Tensor, "... m d"], value: Float[Tensor, "... m d"]
) -> Float[Tensor, "... n d"]:
    """Attention with its scores in memory; the softmax in float32 at least."""
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()
    return scores.softmax(-1).to(value.dtype) @ value


class Block(BeitBlock):
    """timm's BEiT block without relative positions; its attention goes through `attend`."""

    def forward(
        self, x: Float[Tensor, "B N D"], shared_rel_pos_bias: None = None
    ) -> Float[Tensor, "B N D"]:
        x = x + self.drop_path1(self._attention(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attention(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        own = self.attn
        bias = None if own.q_bias is None else torch.cat([own.q_bias, own.k_bias, own.v_bias])
        # Three column blocks: their gradients become one tensor again in a single copy.
        parts = functional.linear(x, own.qkv.weight, bias).chunk(3, -1)
        query, key, value = (
            part.unflatten(-1, (own.num_heads, -1)).transpose(1, 2) for part in parts
        )
        return own.proj(attend(query, key, value).transpose(1, 2).flatten(2))


def transformer_block(
    width: int, num_heads: int, *, qkv_bias: bool = True, eps: float = 1e-6, drop_path: float = 0.0
) -> Block:
    """One pre-norm block with a 4x MLP [method section 3]."""
    return Block(
        width,
        num_heads,
        qkv_bias=qkv_bias,
        drop_path=drop_path,
        norm_layer=partial(nn.LayerNorm, eps=eps),
    )


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases; for `Module.apply` [method section 3]."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def take_tokens(
    values: Shaped[Tensor, "B N D"], idx: Int[Tensor, "B K"]
) -> Shaped[Tensor, "B K D"]:
    """The rows `idx` of each clip."""
    return values.gather(1, idx.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class PatchEmbed(nn.Module):
    """Tokenizer: a 3-D convolution whose stride is its kernel, computed as one matrix product.

    Parameters keep the convolution's shape and default init (`proj.weight` is `D 3 p0 p1 p2`);
    on pixels that are already cut into tokens the product is the same, three times faster in
    bfloat16, and can be limited to the visible tokens.
    """

    def __init__(self, width: int, grid: TokenGrid) -> None:
        super().__init__()
        kernel = (grid.tubelet, grid.patch, grid.patch)
        self.proj = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)

    def forward(self, pixels: Float[Tensor, "B K P"]) -> Float[Tensor, "B K D"]:
        """ImageNet-normalised values of some tokens to embeddings."""
        weight = rearrange(self.proj.weight, "d c p0 p1 p2 -> d (p0 p1 p2 c)")
        return functional.linear(pixels, weight, self.proj.bias)


def _sinusoid(
    positions: Float[Tensor, " n"], width: int, *, base: float = 10_000.0
) -> Float[Tensor, "n D"]:
    """Vaswani et al. (2017): even columns sine, odd columns cosine; float64."""
    column = torch.arange(width, dtype=torch.float64)
    angle = positions[:, None] / base ** (2 * torch.div(column, 2, rounding_mode="floor") / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def position_table(kind: PosEmbed, grid: TokenGrid, width: int) -> Float[Tensor, "1 N D"]:
    """Fixed position codes, float32.

    `sincos_1d` is a sinusoid over the flat token index: the paper family's table. `sincos_3d`
    gives time, row and column a share of the width each, with wavelengths that fit the axis: the
    usual base of 10,000 leaves most columns constant over a dozen positions. Small models leave
    the plateau with it in minutes, where with `sincos_1d` they do not [method section 17].
    """
    flat = torch.arange(grid.num_tokens, dtype=torch.float64)
    if kind == "sincos_1d":
        table = _sinusoid(flat, width)
    else:
        base = 4.0 * max(grid.time, grid.side)
        per_axis = width // 3 // 2 * 2
        along_time = width - 2 * per_axis
        t = torch.div(flat, grid.tokens_per_slot, rounding_mode="floor")
        y = torch.div(flat % grid.tokens_per_slot, grid.side, rounding_mode="floor")
        x = flat % grid.side
        table = torch.cat(
            [
                _sinusoid(t, along_time, base=base),
                _sinusoid(y, per_axis, base=base),
                _sinusoid(x, per_axis, base=base),
            ],
            dim=1,
        )
    return table.float().unsqueeze(0)
