"""Mask policies: what RL calls the actor. Act on tokens, evaluate tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.types import Evaluation, Selection
from tats_ray.models.samplers.fixed_masks import MASKS
from tats_ray.models.samplers.learned import LearnedSampler
from tats_ray.ops.selection import draw_visible, token_log_prob

_MOTION_FLOOR = 0.05
"""The oracle's weight of a still token; one that moves as a whole has 1 + this."""


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

    def observe(self, tokens: Float[Tensor, "B N D"]) -> None:
        """Take tokens into the sampler's running statistics, where it keeps any."""
        self.sampler.observe(tokens)

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
    """Draws by a rule that knows neither the clip nor anything learned.

    Its probabilities are uniform: over many draws every token is about as likely.

    Args:
        name: one of `MASKS`. Tubes and frames show whole ones: the caller rounds `num_visible` to
            `TokenGrid.num_visible_tube` or `num_visible_frame`.
    """

    def __init__(self, grid: TokenGrid, name: str = "random") -> None:
        self.grid = grid
        self.name = name

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        batch, num_tokens = tokens.shape[:2]
        uniform = torch.zeros(batch, num_tokens, device=tokens.device)
        return Evaluation(token_log_prob(uniform), torch.zeros(batch, device=tokens.device))

    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        seen = self.evaluate(tokens)
        visible_idx = MASKS[self.name](self.grid, len(tokens), num_visible, generator)
        return Selection(visible_idx.to(tokens.device), seen.log_prob, seen.value)


class MotionOracle(FixedPolicy):
    """Shows what truly moves, where that is known: a bound for what motion can give.

    Tokens are drawn in proportion to the share of their pixels that move, plus a floor. True
    motion is no part of what a policy observes, so `with_motion` gives it for one batch.
    """

    def __init__(self, grid: TokenGrid, motion: Float[Tensor, "B N"] | None = None) -> None:
        super().__init__(grid, "oracle")
        self.motion = motion

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        if self.motion is None:
            raise UsageError(
                "sampler.name oracle needs the true motion of every clip beside its video, as "
                "`tats data synth` writes it; choose another sampler"
            )
        log_prob = token_log_prob((self.motion.to(tokens.device) + _MOTION_FLOOR).log())
        return Evaluation(log_prob, torch.zeros(len(tokens), device=tokens.device))

    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        seen = self.evaluate(tokens)
        visible_idx = draw_visible(seen.log_prob, num_visible, generator=generator)
        return Selection(visible_idx, seen.log_prob, seen.value)


def with_motion(policy: MaskPolicy, motion: Float[Tensor, "B N"] | None) -> MaskPolicy:
    """The policy for clips that move like this: only the oracle is another one than before."""
    return MotionOracle(policy.grid, motion) if isinstance(policy, MotionOracle) else policy
