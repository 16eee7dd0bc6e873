"""Drawing tokens without replacement, and what a draw says about its policy.

Two log-probabilities exist and are not the same thing. The paper's family scores each token by
its *marginal* log-softmax (`B N`, `token_log_prob`); the draw as a whole has the Plackett-Luce
form (`B`, `plackett_luce_log_prob`). The marginal form is the default everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tats_ray.core.arrays import Bool, Float, Int
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.late import expect


def token_log_prob(logits: Float[Tensor, "B N"], temperature: float = 1.0) -> Float[Tensor, "B N"]:
    """Log pi of each token over the whole clip, float32.

    Raises:
        NonFiniteError: for a NaN or infinite logit. Zeroing it would hide a divergence.
    """
    is_fine = torch.isfinite(logits.detach())

    def error() -> NonFiniteError:
        bad = (~is_fine).any(1).nonzero().flatten().tolist()
        return NonFiniteError(
            f"the token sampler returned non-finite logits for clips {bad} of the batch; "
            "lower algorithm.lr or raise algorithm.entropy_coef"
        )

    expect(is_fine.all(), error)
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def mixed_with_uniform(log_prob: Float[Tensor, "B N"], share: float) -> Float[Tensor, "B N"]:
    """Log of (1 - share) pi + share / N: each draw is uniform with this probability.

    The mixture is the policy: what draws, what is scored and what is learned are all of it, so
    marginal and Plackett-Luce log-probabilities, ratios and entropies stay exact, and gradients
    reach pi through it. No token's probability falls below share / N.

    Args:
        share: inside [0, 1); 0 returns log pi itself.
    """
    if not share:
        return log_prob
    floor = torch.full_like(log_prob, math.log(share / log_prob.shape[1]))
    return torch.logaddexp(log_prob + math.log1p(-share), floor)


def gumbel_noise(shape: tuple[int, ...], *, generator: torch.Generator) -> Float[Tensor, ...]:
    """Standard Gumbel noise: -log of an exponential."""
    noise = torch.empty(shape, device=generator.device)
    return -noise.exponential_(generator=generator).log()


def draw_visible(
    log_prob: Float[Tensor, "B N"], num_visible: int, *, generator: torch.Generator
) -> Int[Tensor, "B K"]:
    """Draw `num_visible` tokens of each clip without replacement, in proportion to pi.

    Gumbel top-k: the same law as torch.multinomial without replacement, but safe where
    probabilities underflow. `-inf` is allowed and means never, while others are left.

    Returns:
        Distinct indices in draw order, which `plackett_luce_log_prob` needs.
    """
    noise = gumbel_noise(tuple(log_prob.shape), generator=generator).to(log_prob.device)
    return (log_prob + noise).topk(num_visible, dim=-1).indices


def is_visible(visible_idx: Int[Tensor, "B K"], num_tokens: int) -> Bool[Tensor, "B N"]:
    """The selection as a boolean view, True where visible."""
    view = torch.zeros(
        visible_idx.shape[0], num_tokens, dtype=torch.bool, device=visible_idx.device
    )
    return view.scatter_(1, visible_idx, True)


def hidden_indices(visible_idx: Int[Tensor, "B K"], num_tokens: int) -> Int[Tensor, "B M"]:
    """The tokens that were not selected, ascending."""
    order = is_visible(visible_idx, num_tokens).to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : num_tokens - visible_idx.shape[1]]


def some_hidden(
    visible_idx: Int[Tensor, "B K"], num_tokens: int, share: float, *, generator: torch.Generator
) -> Int[Tensor, "B m"]:
    """This share of each clip's hidden tokens, rounded, at least one; uniform, ascending."""
    hidden_idx = hidden_indices(visible_idx, num_tokens)
    count = max(1, round(share * hidden_idx.shape[1]))
    shape = hidden_idx.shape
    chance = torch.rand(shape, generator=generator, device=generator.device).to(hidden_idx.device)
    return hidden_idx.gather(1, chance.topk(count, dim=1).indices.sort(dim=1).values)


def entropy(log_prob: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """Entropy of pi over all tokens, nats; at most log N."""
    return -(log_prob.exp() * log_prob).sum(-1)


def plackett_luce_log_prob(
    logits: Float[Tensor, "B N"], visible_idx: Int[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Log-probability of drawing `visible_idx` in this order, without replacement.

    Args:
        logits: preference of each token, unnormalised; any finite value.
        visible_idx: token indices in draw order, distinct within a row.

    Returns:
        Nats, never positive.

    Source: Plackett (1975). Gumbel top-k draws in exactly this distribution.
    """
    chosen = logits.gather(1, visible_idx)
    # The urn before draw k holds the tokens chosen from k on and those never chosen. Summing it
    # from the far end in log space avoids subtracting probabilities from one.
    never = logits.scatter(1, visible_idx, -torch.inf).logsumexp(1, keepdim=True)
    urn = torch.cat([chosen, never], 1).flip(1).logcumsumexp(1).flip(1)[:, :-1]
    return (chosen - urn).sum(1)
