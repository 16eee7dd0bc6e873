"""What the samplers that learn share: tokens plus a position code, and one logit per token.

The policy detaches what it passes in: a sampler never trains the tokenizer (deviation from AdaMAE,
whose sampling loss does; method section 13, A12).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tats_ray.config.schema import SamplerConfig
from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.group import ALONE, Group
from tats_ray.models.layers import init_linear, position_table
from tats_ray.models.whitening import Whitening

ActorInit = Literal["zero", "xavier"]
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

    def observe(self, tokens: Float[Tensor, "B N D"], group: Group = ALONE) -> None:
        """Take tokens into the running statistics, where the sampler keeps any."""
        if self.norm is not None:
            self.norm.observe(tokens, group)

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


START_FIELDS = ("actor_init", "pos_embed", "whiten_tokens")


def start_of(config: SamplerConfig) -> dict[str, Any]:
    """What a configuration says of the parts that every `LearnedSampler` has."""
    return {name: getattr(config, name) for name in START_FIELDS}


def divided(width: int, asked: int, default: int, encoder: int) -> int:
    """Heads of a sampler: those asked for, or the default.

    Raises:
        UsageError: where they do not divide the width, with the encoder's heads, which do.
    """
    num_heads = asked or default
    if width % num_heads:
        raise UsageError(
            f"sampler.num_heads {num_heads} does not divide the width {width} of a token; "
            f"try {encoder}"
        )
    return num_heads
