"""Mask policies: what RL calls the actor. Act on tokens, evaluate tokens."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from tats_ray.core.arrays import Float, Int
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.group import ALONE, Group
from tats_ray.core.protocols import MaskPolicy, MaskRule
from tats_ray.core.types import Evaluation, Selection
from tats_ray.ops.selection import draw_visible, mixed_with_uniform, token_log_prob


@runtime_checkable
class Trunk(Protocol):
    """A sampler whose features a value head may read, too [A6]."""

    def features(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]: ...

    def logits(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N"]: ...


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
        sampler: any network from `B N D` tokens to `B N` logits. Its `observe(tokens)`, where it
            has one, sees what the policy has learned from. Several learners can have one whose
            `observe(tokens, group)` averages over their `Group`.
        temperature: logits are divided by it before the softmax.
        shares_trunk: the value head reads the sampler's features instead of the tokens [A6].
        uniform_share: the probability that a draw is uniform (`mixed_with_uniform`).

    Raises:
        UsageError: for a shared trunk with a sampler that is no `Trunk`.
    """

    def __init__(
        self,
        sampler: nn.Module,
        width: int,
        *,
        temperature: float = 1.0,
        shares_trunk: bool = False,
        uniform_share: float = 0.0,
    ) -> None:
        super().__init__()
        if shares_trunk and not isinstance(sampler, Trunk):
            raise UsageError(
                f"sampler.value_shares_trunk needs a sampler with `features` and `logits`; "
                f"{type(sampler).__name__} lacks them; use false"
            )
        self.sampler: Any = sampler
        self.value_head = ValueHead(width)
        self.temperature = temperature
        self.shares_trunk = shares_trunk
        self.uniform_share = uniform_share

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        """Log-probabilities and value under the current weights, with gradients.

        Raises:
            NonFiniteError: when the sampler has diverged.
        """
        logits, value = self.judge(tokens.detach())
        log_prob = mixed_with_uniform(token_log_prob(logits, self.temperature), self.uniform_share)
        return Evaluation(log_prob, value)

    def judge(
        self, tokens: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, " B"]]:
        """Logits and value of detached tokens: all that the networks compute."""
        features = self.sampler.features(tokens) if self.shares_trunk else tokens
        logits = self.sampler.logits(features) if self.shares_trunk else self.sampler(tokens)
        return logits, self.value_head(features)

    def observe(self, tokens: Float[Tensor, "B N D"], group: Group = ALONE) -> None:
        """Take tokens into the sampler's running statistics, where it keeps any."""
        observe = getattr(self.sampler, "observe", None)
        if observe is not None:
            observe(tokens) if group.size == 1 else observe(tokens, group)

    @torch.no_grad()
    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        """Draw `num_visible` tokens of each clip without replacement."""
        return self.draw(self.evaluate(tokens), num_visible, generator=generator)

    @torch.no_grad()
    def draw(self, seen: Evaluation, num_visible: int, *, generator: torch.Generator) -> Selection:
        """`act` on tokens that were evaluated."""
        log_prob = seen.log_prob.detach()
        visible_idx = draw_visible(log_prob, num_visible, generator=generator)
        return Selection(visible_idx, log_prob, seen.value.detach())

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        return self.evaluate(tokens)


def is_learned(policy: MaskPolicy) -> TypeGuard[SamplerPolicy]:
    """Whether a policy has a network to train; of a configuration, `find_sampler` knows it."""
    return isinstance(policy, SamplerPolicy)


def random_mask(
    grid: TokenGrid, num_clips: int, num_visible: int, generator: torch.Generator
) -> Int[Tensor, "B K"]:
    """Any tokens, each as likely."""
    uniform = torch.zeros(num_clips, grid.num_tokens, device=generator.device)
    return draw_visible(token_log_prob(uniform), num_visible, generator=generator)


class FixedPolicy:
    """Draws by a fixed rule that ignores the clip and learns nothing.

    Its probabilities are uniform: over many draws every token is about as likely.
    """

    def __init__(self, grid: TokenGrid, rule: MaskRule = random_mask) -> None:
        self.grid = grid
        self.rule = rule

    def evaluate(self, tokens: Float[Tensor, "B N D"]) -> Evaluation:
        batch, num_tokens = tokens.shape[:2]
        uniform = torch.zeros(batch, num_tokens, device=tokens.device)
        return Evaluation(token_log_prob(uniform), torch.zeros(batch, device=tokens.device))

    def act(
        self, tokens: Float[Tensor, "B N D"], num_visible: int, *, generator: torch.Generator
    ) -> Selection:
        """Draw `num_visible` tokens of each clip.

        Raises:
            UsageError: for a rule that draws another number.
        """
        seen = self.evaluate(tokens)
        visible_idx = self.rule(self.grid, len(tokens), num_visible, generator)
        if visible_idx.shape != (len(tokens), num_visible):
            raise UsageError(
                f"a mask rule drew {tuple(visible_idx.shape)} (clips, tokens) where "
                f"{(len(tokens), num_visible)} were asked for; draw as many as num_visible says"
            )
        return Selection(visible_idx.to(tokens.device), seen.log_prob, seen.value)
