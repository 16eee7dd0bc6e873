"""Token samplers that learn: TATS (trajectory attention) and AdaMAE (joint attention).

Both read the clip's tokens plus a position code and give each token one logit. Inputs are
detached by whoever calls: a sampler never trains the tokenizer (deviation from AdaMAE, whose
sampling loss does; method section 13, A12).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float
from tats_ray.core.grid import TokenGrid
from tats_ray.models.layers import init_linear, position_table, transformer_block
from tats_ray.models.trajectory import TrajectoryBlock
from tats_ray.models.whitening import Whitening

ActorInit = Literal["zero", "xavier"]
_KEPT_VALUES = 2**20
"""Values per clip up to which trajectories are kept for the backward pass, not recomputed."""

SamplerPosEmbed = Literal["learned", "sincos_1d", "sincos_3d"]


class LearnedSampler(nn.Module):
    """Position code, blocks, and a linear actor: `B N D` tokens to `B N` logits.

    Args:
        blocks: modules that map `B N D` to `B N D`.
        actor_init: `zero` starts at exactly the uniform distribution, so that the hand-over from
            random masks is smooth; `xavier` is AdaMAE's, far from uniform [A1].
        pos_embed: `learned` starts at zero (AdaMAE's E_p); the fixed tables know from the first
            step where a token is, which motion cannot be told without [A20].
        whiten_tokens: see every direction of the tokens alike, by running statistics that
            `observe` keeps.
    """

    def __init__(
        self,
        blocks: list[nn.Module],
        width: int,
        grid: TokenGrid,
        *,
        actor_init: ActorInit = "zero",
        pos_embed: SamplerPosEmbed = "learned",
        whiten_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.norm = Whitening(width) if whiten_tokens else None
        if pos_embed == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, grid.num_tokens, width))
        else:
            table = position_table(pos_embed, grid, width)
            self.register_buffer("pos_embed", table, persistent=False)
        self.blocks = nn.ModuleList(blocks)
        self.actor = nn.Linear(width, 1)
        self.apply(init_linear)
        if actor_init == "zero":
            nn.init.zeros_(self.actor.weight)

    def observe(self, tokens: Float[Tensor, "B N D"]) -> None:
        """Take tokens into the running statistics, where the sampler keeps any."""
        if self.norm is not None:
            self.norm.observe(tokens)

    def features(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """What the actor reads; a value head may share it [A6]."""
        x = (tokens if self.norm is None else self.norm(tokens)) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x

    def logits(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N"]:
        """Float32 from here on: half precision would break PPO's ratios."""
        with torch.autocast(features.device.type, enabled=False):
            return self.actor(features.float()).squeeze(-1)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N"]:
        return self.logits(self.features(tokens))


def tats_sampler(
    width: int,
    grid: TokenGrid,
    *,
    num_heads: int,
    num_blocks: int = 1,
    qkv_bias: bool = True,
    project_values: bool = True,
    actor_init: ActorInit = "zero",
    pos_embed: SamplerPosEmbed = "learned",
    whiten_tokens: bool = False,
) -> LearnedSampler:
    """The paper's sampler: trajectory attention blocks [method sections 7.1, 7.2]."""
    trajectory_values = grid.num_tokens * grid.time * width
    blocks = [
        TrajectoryBlock(
            width,
            num_heads,
            grid.time,
            qkv_bias=qkv_bias,
            project_values=project_values,
            recompute=trajectory_values > _KEPT_VALUES,
        )
        for _ in range(num_blocks)
    ]
    return LearnedSampler(
        list(blocks),
        width,
        grid,
        actor_init=actor_init,
        pos_embed=pos_embed,
        whiten_tokens=whiten_tokens,
    )


def adamae_sampler(
    width: int,
    grid: TokenGrid,
    *,
    num_heads: int = 8,
    num_blocks: int = 1,
    actor_init: ActorInit = "zero",
    pos_embed: SamplerPosEmbed = "learned",
    whiten_tokens: bool = False,
) -> LearnedSampler:
    """AdaMAE's sampler: plain attention over all tokens, LayerNorm eps 1e-5, no QKV bias.

    Deviation: no dropout (AdaMAE has 0.1), since it would make PPO's ratio noisy
    [method sections 6, 14].
    """
    blocks: list[nn.Module] = [
        transformer_block(width, num_heads, qkv_bias=False, eps=1e-5) for _ in range(num_blocks)
    ]
    return LearnedSampler(
        blocks,
        width,
        grid,
        actor_init=actor_init,
        pos_embed=pos_embed,
        whiten_tokens=whiten_tokens,
    )
