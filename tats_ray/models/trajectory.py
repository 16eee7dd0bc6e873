"""Trajectory attention: each token looks along the path that its content takes through time.

Stage 1 pools, for every query token and every time slot, the values of that slot by softmax over
space: the query's *trajectory*, one vector per slot. Stage 2 lets the trajectory's own slot attend
over all its slots [Patrick et al. 2021; method section 7.1].

Written without N x N scores and without projecting the trajectory: the key and value matrices of
stage 2 are folded into the query and into the pooled result. That is exact, because the key bias
adds the same to every slot and so cancels in the softmax, and the value bias passes through a mean
unchanged. Stage 1 is one attention call: the clips stand beside the heads, and the time slots of
the keys are the batch, so that queries are shared and nothing is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tats_ray.core.arrays import Float
from tats_ray.models.layers import Mlp, attend

_VALUES_AT_ONCE = {"cpu": 1_850_000, "cuda": 2**28}
"""Folded values that stage 2 handles together: what a CPU's cache holds, or part of a GPU."""


class TrajectoryAttention(nn.Module):
    """Multi-head trajectory attention over `num_slots` time slots, without a class token.

    Args:
        project_values: weigh projected values in stage 2, as the paper's equations say. False
            weighs the trajectory itself: Motionformer's published switch `use_original_code`,
            whose value projection then gets no gradient.
        recompute: take the queries of one time slot after another, and compute their trajectories
            again in the backward pass. The trajectories of one slot are then the most that ever
            exists, for about a fifth of the training cost. Results differ by rounding.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_slots: int,
        *,
        qkv_bias: bool = True,
        project_values: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_slots = num_slots
        self.project_values = project_values
        self.recompute = recompute
        self.is_fused = False
        """Whether the middle of stage 2 is one kernel; `use_faster_form` decides it on a GPU."""
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj_q = nn.Linear(width, width, bias=qkv_bias)
        self.proj_kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        batch, tokens, width = x.shape
        slots, heads = self.num_slots, self.num_heads
        depth = width // heads
        bias = self.qkv.bias
        biases: Sequence[Tensor | None] = [None] * 3 if bias is None else bias.chunk(3)
        # Three products of tokens first, clips second: then clips lie beside the heads.
        rows = x.transpose(0, 1)
        query, key, value = (
            functional.linear(rows, weight, shift).view(tokens, batch * heads, depth)
            for weight, shift in zip(self.qkv.weight.chunk(3), biases, strict=True)
        )
        query = query.transpose(0, 1)
        keys, values = (
            part.view(slots, tokens // slots, batch * heads, depth).transpose(1, 2)
            for part in (key, value)
        )
        if not self.recompute:
            found = self._look(query, keys, values, 0)
        else:
            parts = enumerate(query.chunk(slots, 1))
            keeps = not torch.is_grad_enabled()
            found = torch.cat(
                [
                    self._look(part, keys, values, slot)
                    if keeps
                    else checkpoint(self._look, part, keys, values, slot, use_reentrant=False)
                    for slot, part in parts
                ]
            )
        return self.proj(found.view(tokens, batch, width).transpose(0, 1))

    def _look(
        self,
        query: Float[Tensor, "Bh n d"],
        keys: Float[Tensor, "t Bh s d"],
        values: Float[Tensor, "t Bh s d"],
        first: int,
    ) -> Float[Tensor, "nB D"]:
        """What the tokens of some time slots, `first` and on, find along their trajectories."""
        slots, heads = self.num_slots, self.num_heads
        pooled = attend(query.expand(slots, -1, -1, -1), keys, values)
        path = pooled.transpose(1, 2).reshape(slots, -1, heads * pooled.shape[-1])  # t nB D
        depth, per_slot = pooled.shape[-1], keys.shape[2] * keys.shape[1] // heads
        weight = self.proj_kv.weight.to(path.dtype).view(2, heads, depth, -1)
        to_query = (self.proj_q.weight * depth**-0.5).to(path.dtype)
        shift = None if self.proj_q.bias is None else self.proj_q.bias * depth**-0.5
        where = (per_slot, first)
        if self.project_values:
            given = (path, to_query, shift, weight[0], weight[1])
            out = _SecondStage.apply(*given, where, self.is_fused)
            bias = self.proj_kv.bias
            return out if bias is None else out + bias.chunk(2)[1].to(out.dtype)
        asked = _queries(_own(path, *where), to_query, shift, heads)
        logits = torch.bmm(torch.bmm(asked, weight[0]).transpose(0, 1), path.permute(1, 2, 0))
        values = path.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
        return (_softmax(logits).unsqueeze(-2) @ values).flatten(-3)


def _own(path: Float[Tensor, "t n D"], per_slot: int, first: int) -> Float[Tensor, "T s D"]:
    """A view of the tokens' own slots, which are slots `first` and on."""
    return path.unflatten(1, (-1, per_slot)).diagonal(-first, dim1=0, dim2=1).movedim(-1, 0)


def _queries(
    own: Float[Tensor, "T s D"], weight: Tensor, bias: Tensor | None, heads: int
) -> Float[Tensor, "h n d"]:
    bias = None if bias is None else bias.to(own.dtype)
    return (
        functional.linear(own.flatten(0, 1), weight, bias)
        .unflatten(-1, (heads, -1))
        .transpose(0, 1)
    )


def _softmax(logits: Float[Tensor, "n h t"]) -> Float[Tensor, "n h t"]:
    """In float32 at least."""
    if logits.dtype in _HALF:
        return logits.softmax(-1, dtype=torch.float32).to(logits.dtype)
    return logits.softmax(-1)


def mix(
    folded: Float[Tensor, "h n D"], seen: Float[Tensor, "n t D"]
) -> tuple[Float[Tensor, "n h t"], Float[Tensor, "h n D"]]:
    """How much of each slot a head takes of a token's trajectory, and what it has then."""
    share = _softmax(torch.bmm(folded.transpose(0, 1), seen.mT))
    return share, torch.bmm(share, seen).transpose(0, 1)


def unmix(
    folded: Float[Tensor, "h n D"],
    pulls: Float[Tensor, "h n D"],
    seen: Float[Tensor, "n t D"],
    share: Float[Tensor, "n h t"],
    target: Float[Tensor, "n t D"],
) -> tuple[Float[Tensor, "h n D"], Float[Tensor, "h n D"]]:
    """What `mix` had found, again, and the gradient of its queries; that of `seen` to `target`.

    Args:
        pulls: the gradient of what was found.
    """
    slope = share * torch.bmm(pulls.transpose(0, 1), seen.mT)
    slope = torch.addcmul(slope, share, slope.sum(-1, keepdim=True), value=-1)
    both = torch.cat([share, slope], 1)
    target.copy_(torch.bmm(both.mT, torch.cat([pulls, folded]).transpose(0, 1)))
    mixed, of_folded = torch.bmm(both, seen).transpose(0, 1).chunk(2)
    return mixed, of_folded


class _SecondStage(torch.autograd.Function):
    """Attention of each token over its own trajectory, with the projections folded into it.

    The folded query and the mixed trajectory have a row of full width for each head. They are
    larger than all else here, so they are kept in the cache, part by part, and made again in the
    backward pass. Heads first is a product for all tokens of a head, tokens first is a small
    one for each token.
    """

    @staticmethod
    def forward(
        ctx: Any,
        path: Float[Tensor, "t n D"],
        to_query: Float[Tensor, "D D"],
        shift: Float[Tensor, " D"] | None,
        key: Float[Tensor, "h d D"],
        value: Float[Tensor, "h d D"],
        where: tuple[int, int],
        is_fused: bool,
    ) -> Float[Tensor, "n D"]:
        form = torch.ops.tats_ray.mix if is_fused else mix
        query = _queries(_own(path, *where), to_query, shift, len(key))
        back, size = value.mT, _rows_at_once(path, len(key))
        parts = [rows.split(size, dim) for rows, dim in ((query, 1), (path.transpose(0, 1), 0))]
        found, shares = [], []
        for asked, seen in zip(*parts, strict=True):
            share, mixed = form(torch.bmm(asked, key), seen)
            found.append(torch.bmm(mixed, back))
            shares.append(share)
        ctx.save_for_backward(path, query, to_query, key, value, *shares)
        ctx.form = torch.ops.tats_ray.unmix if is_fused else unmix
        ctx.where, ctx.shift_dtype = where, None if shift is None else shift.dtype
        return torch.cat(found, 1).transpose(0, 1).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "n D"]) -> Any:
        path, query, to_query, key, value, *shares = ctx.saved_tensors
        heads, size = len(key), _rows_at_once(path, len(key))
        along, of_query, back = torch.empty_like(path), [], key.mT
        of_key, of_value = (torch.zeros_like(w, dtype=_wide(w.dtype)) for w in (key, value))
        by_head = grad.unflatten(1, (heads, -1)).transpose(0, 1)
        split = ((query, 1), (by_head, 1), (path.transpose(0, 1), 0), (along.transpose(0, 1), 0))
        parts = [rows.split(size, dim) for rows, dim in split]
        for asked, wanted, seen, target, share in zip(*parts, shares, strict=True):
            given = (torch.bmm(asked, key), torch.bmm(wanted, value), seen, share)
            mixed, of_folded = ctx.form(*given, target)
            of_query.append(torch.bmm(of_folded, back))
            _add_product(of_key, asked.mT, of_folded)
            _add_product(of_value, wanted.mT, mixed)
        slopes = torch.cat(of_query, 1).transpose(0, 1).flatten(1)
        own = _own(along, *ctx.where)
        of_weight = slopes.mT @ _own(path, *ctx.where).flatten(0, 1)
        of_shift = None if ctx.shift_dtype is None else slopes.sum(0, dtype=ctx.shift_dtype)
        own += (slopes @ to_query).view_as(own)
        grads = (along, of_weight, of_shift, of_key.to(key.dtype), of_value.to(value.dtype))
        return *grads, None, None


_HALF = (torch.bfloat16, torch.float16)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """For sums over parts: float32 at least."""
    return torch.float32 if dtype in _HALF else dtype


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    if total.dtype == one.dtype:
        total.baddbmm_(one, other)
    else:
        total += torch.bmm(one, other)


def _rows_at_once(path: Float[Tensor, "t n D"], heads: int) -> int:
    return max(1, _VALUES_AT_ONCE.get(path.device.type, 2**28) // (heads * path.shape[2]))


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
