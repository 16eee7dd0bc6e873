"""What policy algorithms share: an optimiser, the walk over the memory, diagnostics, a state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.arrays import Bool, Float
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.group import ALONE, Group, mean_over
from tats_ray.core.late import Brake, LateMetrics, Scalar, expect, mean
from tats_ray.core.types import Evaluation, Metrics, Rollout, Scalars
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import approx_kl
from tats_ray.ops.optim import adamw
from tats_ray.ops.rewards import clip_return
from tats_ray.ops.selection import entropy

_LOOK_BACK = 1 / 8
"""After an update, this part of the clips is evaluated again, to see how far the policy moved."""


class PolicyGradient:
    """Base of the algorithms here: subclass it and write `loss`.

    Args:
        num_steps: optimiser steps per update. Step j uses entry `order[j mod k]` of the memory,
            where `order` is a random permutation of its k entries [method section 7.7].
        takes_all_entries: every step uses all k entries at once instead.
    """

    def __init__(
        self,
        config: AlgorithmConfig,
        policy: SamplerPolicy,
        *,
        num_steps: int = 1,
        takes_all_entries: bool = False,
    ) -> None:
        self.policy = policy
        self.num_steps = num_steps
        self.takes_all_entries = takes_all_entries
        self.optimizer = adamw(
            policy, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.brake = Brake()
        self.group: Group = ALONE
        """Those who learn this policy together. A `loss` that looks at the whole batch asks it."""

    def join(self, group: Group) -> None:
        """Learn together with others, each from rollouts of its own [see `Shareable`]."""
        self.group = group

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Float[Tensor, ""], Scalars]:
        """What to minimise on one entry, and scalars about it."""
        raise NotImplementedError

    def moved(self, rollout: Rollout, now: Evaluation) -> Scalars:
        """How far the update took the policy from the one that drew `rollout`."""
        log_ratio = now.log_prob - rollout.log_prob
        return {"approx_kl": approx_kl(log_ratio, rollout.log_prob)}

    def update(self, rollouts: Sequence[Rollout], *, generator: torch.Generator) -> Metrics:
        """Improve the policy in place.

        Args:
            rollouts: the memory, one entry per MAE step, all ranks' clips in each.
            generator: draws the order of entries.

        Returns:
            Means over the optimiser steps, and what `moved` says after the last of them; over
            the clips of all members of the group.

        Raises:
            NonFiniteError: for a loss that is not finite; the policy is left as it was.
        """
        if self.takes_all_entries:
            rollouts = [Rollout.concatenate(rollouts)]
        order = torch.randperm(len(rollouts), generator=generator).tolist()
        taken = [rollouts[order[j % len(order)]] for j in range(self.num_steps)]
        # Nothing was learned since the draw, so the first step needs no other evaluation.
        known = [taken[0].drawn, *[None] * (self.num_steps - 1)]
        history = [self._step(rollout, now) for rollout, now in zip(taken, known, strict=True)]
        means = {name: mean([m[name] for m in history]) for name in history[0]}
        with torch.no_grad():
            some = taken[-1].head_of_each(_LOOK_BACK)
            found = {**means, **self.moved(some, self.evaluate(some))}
            return LateMetrics(self._over_all(found))

    def evaluate(self, rollout: Rollout) -> Evaluation:
        """The present opinion on every row; masks of the same clip share one evaluation."""
        masks = rollout.masks_per_clip
        now = self.policy.evaluate(rollout.tokens[::masks])
        if masks == 1:
            return now
        return Evaluation(
            now.log_prob.repeat_interleave(masks, 0), now.value.repeat_interleave(masks, 0)
        )

    def _step(self, rollout: Rollout, now: Evaluation | None) -> Scalars:
        now = now or self.evaluate(rollout)
        loss, terms = self.loss(rollout, now)
        reached, step = loss.detach(), rollout.step  # and not the rollout, which is large
        is_own_fine = torch.isfinite(reached)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        is_fine = self._average_gradients(is_own_fine)
        expect(
            is_fine,
            lambda: NonFiniteError(
                f"the policy loss is {reached.item()} at MAE step {step}; "
                "lower algorithm.lr or raise the entropy weight",
                is_own=not is_own_fine,
            ),
        )
        self.brake.step(self.optimizer, is_fine)
        return {"loss": reached, **terms, **self.diagnostics(rollout, now)}

    def _average_gradients(self, is_fine: Bool[Tensor, ""]) -> Bool[Tensor, ""]:
        """Make each member's gradients those of all clips; whether all members are fine."""
        if self.group.size == 1:
            return is_fine
        slopes = [p.grad for p in self.policy.parameters() if p.grad is not None]
        votes = (~is_fine).to(slopes[0]).view(1)
        # In one piece: a message for each parameter would cost more than it carries.
        flat = torch.cat([votes, *(slope.flatten() * self.group.share for slope in slopes)])
        against, *parts = self.group.sum(flat).split([1, *(s.numel() for s in slopes)])
        for slope, part in zip(slopes, parts, strict=True):
            slope.copy_(part.view_as(slope))
        return against[0] == 0

    def _over_all(self, scalars: Scalars) -> dict[str, Scalar]:
        """Means over this member's clips -> over the clips of all."""
        if self.group.size == 1:
            return dict(scalars)
        device = next(self.policy.parameters()).device
        own = [torch.as_tensor(s, dtype=torch.float64, device=device) for s in scalars.values()]
        return dict(zip(scalars, mean_over(self.group, torch.stack(own)), strict=True))

    @staticmethod
    @torch.no_grad()
    def diagnostics(rollout: Rollout, now: Evaluation) -> Scalars:
        """What every policy gradient should show. Keys are explained in docs/metrics.md."""
        spread = entropy(now.log_prob.detach())
        num_tokens = rollout.log_prob.shape[1]
        return {
            "entropy": (spread / math.log(num_tokens)).mean(),
            "effective_tokens": spread.exp().mean(),
            "max_prob_x_n": (now.log_prob.amax(1).exp() * num_tokens).mean(),
            "reward": clip_return(rollout.reward, rollout.visible_idx).mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's own state, and plain numbers: all of it can be stored unpickled."""
        return {"optimizer": self.optimizer.state_dict(), "numbers": {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
