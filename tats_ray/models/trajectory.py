"""Trajectory attention: each token looks along the path that its content takes through time.

Stage 1 pools, for every query token and every time slot, the values of that slot by softmax over
space: the query's *trajectory*, one vector per slot. Stage 2 lets the trajectory's own slot attend
over all its slots [Patrick et al. 2021; method section 7.1].

Written without N x N scores and without projecting the trajectory: the key and value matrices of
stage 2 are folded into the query and into the pooled result. That is exact, because the key bias
adds the same to every slot and so cancels in the softmax, and the value bias passes through a mean
unchanged. Queries are taken one time slot after another and recomputed in the backward pass, so
the trajectories of one slot are the most that ever exists.
"""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tats_ray.core.arrays import Float
from tats_ray.models.layers import Mlp


class TrajectoryAttention(nn.Module):
    """Multi-head trajectory attention over `num_slots` time slots, without a class token.

    Args:
        project_values: weigh projected values in stage 2, as the paper's equations say. False
            weighs the trajectory itself: Motionformer's published switch `use_original_code`,
            whose value projection then gets no gradient.
        recompute: trade one more pass over each slot's trajectories, about a tenth of the
            training cost, for not storing them.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_slots: int,
        *,
        qkv_bias: bool = True,
        project_values: bool = True,
        recompute: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_slots = num_slots
        self.project_values = project_values
        self.recompute = recompute
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj_q = nn.Linear(width, width, bias=qkv_bias)
        self.proj_kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        q, k, v = rearrange(
            self.qkv(x), "b (t s) (three h d) -> three t b h s d", three=3, t=self.num_slots,
            h=self.num_heads,
        )  # fmt: skip
        keys = rearrange(k, "t b h s d -> (b t) h s d")
        values = rearrange(v, "t b h s d -> (b t) h s d")
        keep = not (self.recompute and torch.is_grad_enabled())
        slot = self._slot if keep else partial(checkpoint, self._slot, use_reentrant=False)
        return self.proj(torch.cat([slot(q[t], keys, values, t) for t in range(self.num_slots)], 1))

    def _slot(
        self,
        query: Float[Tensor, "B h s d"],
        keys: Float[Tensor, "Bt h s d"],
        values: Float[Tensor, "Bt h s d"],
        slot: int,
    ) -> Float[Tensor, "B s D"]:
        """What the tokens of one time slot find along their trajectories."""
        spread = query.repeat_interleave(self.num_slots, dim=0)
        pooled = functional.scaled_dot_product_attention(spread, keys, values)
        path = rearrange(pooled, "(b t) h s d -> b s t (h d)", t=self.num_slots)

        key_weight, value_weight = rearrange(
            self.proj_kv.weight, "(two h d) D -> two h d D", two=2, h=self.num_heads
        )
        own = rearrange(self.proj_q(path[:, :, slot]), "b s (h d) -> b s h d", h=self.num_heads)
        # One GEMM per head for all tokens, then one small GEMM per token over its own path.
        folded = torch.einsum("bshd,hdD->bshD", own * own.shape[-1] ** -0.5, key_weight)
        weight = (folded @ path.transpose(-1, -2)).softmax(-1)
        if not self.project_values:
            heads = rearrange(path, "b s t (h d) -> b s h t d", h=self.num_heads)
            mixed = (weight.to(heads.dtype).unsqueeze(-2) @ heads).squeeze(-2)
            return mixed.flatten(-2)
        mixed = torch.einsum("bshD,hdD->bshd", weight.to(path.dtype) @ path, value_weight)
        out = mixed.flatten(-2)
        bias = self.proj_kv.bias
        return out if bias is None else out + bias.chunk(2)[1].to(out.dtype)


class TrajectoryBlock(nn.Module):
    """Pre-norm trajectory attention and a 4x GELU MLP, LayerNorm eps 1e-6, no dropout.

    Args:
        switches: of `TrajectoryAttention`.
    """

    def __init__(self, width: int, num_heads: int, num_slots: int, **switches: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = TrajectoryAttention(width, num_heads, num_slots, **switches)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
