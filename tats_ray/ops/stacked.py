"""Optimisers for parameters that hold many independent copies along their first axis, `H`.

Every copy has a learning rate and a weight decay of its own, and moves exactly as it would alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from tats_ray.core.arrays import Float
from tats_ray.ops.optim import NO_DECAY_NAMES


class StackedOptimizer(ABC):
    """Walks over the parameters; a subclass moves one of them.

    Weight decay leaves out what `ops.optim.decayed` leaves out: biases, norms, and the query.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], lr: Float[Tensor, " H"], decay: Float[Tensor, " H"]
    ) -> None:
        self._parameters = parameters
        self._lr = lr
        self._decay = decay
        self._num_steps = 0
        self._memory: dict[str, tuple[Tensor, ...]] = {
            name: (torch.zeros_like(value), torch.zeros_like(value))
            for name, value in parameters.items()
        }

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Move by the gradients, and clear them; `factor` is the schedule's, on every rate."""
        self._num_steps += 1
        for name, value in self._parameters.items():
            assert value.grad is not None
            is_decayed = value.ndim > 2 and name.rsplit(".", 1)[-1] not in NO_DECAY_NAMES
            shape = (-1, *[1] * (value.ndim - 1))
            self.move(
                value,
                value.grad,
                self._memory[name],
                lr=(self._lr * factor).view(shape),
                decay=self._decay.view(shape) * is_decayed,
            )
            value.grad = None

    @abstractmethod
    def move(
        self, value: Tensor, grad: Tensor, memory: tuple[Tensor, ...], *, lr: Tensor, decay: Tensor
    ) -> None:
        """Change `value` and `memory` in place."""


class StackedSGD(StackedOptimizer):
    """SGD with momentum 0.9, as torch's.

    Args:
        trust: above 0 it is LARS: the step of a matrix has the length lr x trust x the matrix's own
            norm, before momentum [You et al. 2017; MoCo v3 and MAE take 0.001].
    """

    momentum = 0.9

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        lr: Float[Tensor, " H"],
        decay: Float[Tensor, " H"],
        *,
        trust: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, decay)
        self.trust = trust

    def move(
        self, value: Tensor, grad: Tensor, memory: tuple[Tensor, ...], *, lr: Tensor, decay: Tensor
    ) -> None:
        update = grad + decay * value
        if self.trust and value.ndim > 2:
            axes = tuple(range(1, value.ndim))
            own, other = (x.square().sum(axes, keepdim=True).sqrt() for x in (value, update))
            update = update * torch.where((own > 0) & (other > 0), self.trust * own / other, 1.0)
        memory[0].mul_(self.momentum).add_(update)
        value.sub_(lr * memory[0])


class StackedAdamW(StackedOptimizer):
    """AdamW as torch's, betas 0.9 and 0.999, eps 1e-8."""

    betas = (0.9, 0.999)
    eps = 1e-8

    def move(
        self, value: Tensor, grad: Tensor, memory: tuple[Tensor, ...], *, lr: Tensor, decay: Tensor
    ) -> None:
        (first, second), (mean, square) = self.betas, memory
        value.mul_(1 - lr * decay)
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        root = (square / (1 - second**self._num_steps)).sqrt() + self.eps
        value.sub_(lr / (1 - first**self._num_steps) * mean / root)
