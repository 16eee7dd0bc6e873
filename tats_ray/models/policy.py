"""Mask policies: what RL calls the actor. Act on tokens, evaluate tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Evaluation, Selection
from tats_ray.models.samplers import LearnedSampler
from tats_ray.ops.selection import draw_visible, token_log_prob


class ValueHead(nn.Module):
    """Expected return of a clip, one number: a baseline per token would absorb the reward.

    LN, Linear(D, 256), GELU, mean over tokens, Linear(256, 1) [method section 7.3].
    """

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, " B"]:
        hidden = nn.functional.gelu(self.fc1(self.norm(tokens))).mean(1)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.fc2(hidden.float()).squeeze(-1)


class SamplerPolicy(nn.Module):
    """A learned sampler, a temperature, and a value: draws in proportion to pi.

    Args:
        temperature: logits are divided by it before the softmax.
        shares_trunk: the value head reads the sampler's features instead of the tokens [A6].
    """

    def __init__(
        self,
        sampler: LearnedSampler,
        width: int,
        *,
        temperature: float = 1.0,
        shares_trunk: bool = False,
    ) -> None:
        super().__init__()
        self.sampler = sampler
        self.value_head = ValueHead(width)
        self.temperature = temperature
        self.shares_trunk = shares_trunk

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        """Log-probabilities and value under the current weights, with gradients.

        Raises:
            NonFiniteError: when the sampler has diverged.
        """
        tokens = tokens.detach()
        features = self.sampler.features(tokens)
        log_prob = token_log_prob(self.sampler.logits(features), self.temperature)
        return Evaluation(log_prob, self.value_head(features if self.shares_trunk else tokens))

    @torch.no_grad()
    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        """Draw `num_visible` tokens of each clip without replacement."""
        seen = self.evaluate(tokens)
        visible_idx = draw_visible(seen.log_prob, num_visible, generator=generator)
        return Selection(visible_idx, seen.log_prob, seen.value)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        return self.evaluate(tokens)


class FixedPolicy:
    """Masks that nothing learns: uniformly random tokens, or tubes through time.

    A tube mask hides the same columns in every time slot, so its count is a whole number of
    columns: `num_visible` is rounded to `TokenGrid.num_visible_tube` by the caller.
    """

    def __init__(self, grid: TokenGrid, *, is_tube: bool = False) -> None:
        self.grid = grid
        self.is_tube = is_tube

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        batch, num_tokens = tokens.shape[:2]
        uniform = torch.zeros(batch, num_tokens, device=tokens.device)
        return Evaluation(token_log_prob(uniform), torch.zeros(batch, device=tokens.device))

    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        seen = self.evaluate(tokens)
        if not self.is_tube:
            visible_idx = draw_visible(seen.log_prob, num_visible, generator=generator)
            return Selection(visible_idx, seen.log_prob, seen.value)
        slots, per_slot = self.grid.time, self.grid.tokens_per_slot
        if num_visible % slots:
            raise ValueError(f"a tube mask over {slots} time slots cannot show {num_visible}")
        column = draw_visible(
            seen.log_prob[:, :per_slot], num_visible // slots, generator=generator
        )
        offset = torch.arange(slots, device=column.device) * per_slot
        visible_idx = (offset[None, :, None] + column[:, None, :]).flatten(1)
        return Selection(visible_idx, seen.log_prob, seen.value)
