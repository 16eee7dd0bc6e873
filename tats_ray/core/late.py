"""Numbers that stay on their device until somebody reads them, and checks that wait with them.

Every number that is fetched from a GPU by itself makes the host wait until all of its work is
done. So a training step fetches none: what it measured goes into a record together with that of
other steps, and what it expects to hold is looked at then, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from tats_ray.core.arrays import Bool

Scalar = float | Tensor
"""A number, or a tensor of shape () that holds one."""


def fetch(scalars: Sequence[Scalar]) -> list[float]:
    """The numbers, brought from each device in one piece for each type."""
    found: list[Any] = list(scalars)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, scalar in enumerate(scalars):
        if isinstance(scalar, Tensor):
            groups.setdefault((scalar.device, scalar.dtype), []).append(place)
    for places in groups.values():
        values = torch.stack([found[place].detach() for place in places]).tolist()
        for place, value in zip(places, values, strict=True):
            found[place] = value
    return found


class LateMetrics(Mapping[str, float]):
    """Scalars by name that are fetched, all at once, when one of them is read first."""

    def __init__(self, scalars: Mapping[str, Scalar]) -> None:
        self.scalars: dict[str, Scalar] = {
            name: value.detach() if isinstance(value, Tensor) and value.requires_grad else value
            for name, value in scalars.items()
        }
        """Where they are, without the graphs that made them."""
        self._read: dict[str, float] | None = None

    def __getitem__(self, name: str) -> float:
        if self._read is None:
            self._read = dict(zip(self.scalars, fetch([*self.scalars.values()]), strict=True))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scalars)

    def __len__(self) -> int:
        return len(self.scalars)


def unread(metrics: Mapping[str, Any]) -> dict[str, Scalar]:
    """Scalars by name, as they are on their device."""
    return dict(metrics.scalars if isinstance(metrics, LateMetrics) else metrics)


def mean(scalars: Sequence[Scalar]) -> Scalar:
    """Of a few numbers, in float64, where they are."""
    if len(scalars) == 1:
        return scalars[0]
    device = next((scalar.device for scalar in scalars if isinstance(scalar, Tensor)), None)
    if device is None:
        return sum(scalars) / len(scalars)
    parts = [torch.as_tensor(s, dtype=torch.float64, device=device).detach() for s in scalars]
    return torch.stack(parts).mean()


class LateChecks:
    """Expectations of a few steps, looked at together."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Callable[[], Exception], Any]] = []

    @contextmanager
    def gather(self, mark: Any) -> Iterator[None]:
        """Whatever `expect` is told meanwhile waits for `failed`, marked with where it was."""
        outer = _gathering.set((self, mark))
        try:
            yield
        finally:
            _gathering.reset(outer)

    def add(self, holds: Bool[Tensor, ""], error: Callable[[], Exception], mark: Any) -> None:
        self._waiting.append((holds.detach(), error, mark))

    def failed(self) -> tuple[Exception, Any] | None:
        """The first expectation since the last call that did not hold: its error, and the mark."""
        waiting, self._waiting = self._waiting, []
        for holds, (_, error, mark) in zip(fetch([w[0] for w in waiting]), waiting, strict=True):
            if not holds:
                return error(), mark
        return None


_gathering: ContextVar[tuple[LateChecks, Any] | None] = ContextVar("gathering", default=None)


def expect(holds: Bool[Tensor, ""], error: Callable[[], Exception]) -> None:
    """Raise `error` unless it holds: at once, or where a training loop gathers checks, later.

    Code that goes on must be harmless until then, whatever the tensors hold.
    """
    gathering = _gathering.get()
    if gathering is not None:
        checks, mark = gathering
        checks.add(holds, error, mark)
    elif not holds:
        raise error()


class Brake:
    """Stops an optimiser from the first step on whose loss is not finite, without reading it.

    The weights then stay as they were before that step, whatever the host asks for until it knows.
    """

    def __init__(self) -> None:
        self._pulled: Tensor | None = None

    def step(
        self, optimizer: Any, is_fine: Bool[Tensor, ""], divisor: Tensor | None = None
    ) -> None:
        """One step of a torch optimiser, unless this or an earlier one was not fine.

        Fused optimisers know on their device; of others, the host must ask.

        Args:
            divisor: of all gradients, of shape (); for fused optimisers, which divide as they read.
        """
        bad = (~is_fine).float()
        self._pulled = bad if self._pulled is None else torch.maximum(self._pulled, bad)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # What torch's gradient scaler sets: such optimisers leave everything as it was.
            optimizer.grad_scale, optimizer.found_inf = divisor, self._pulled
            optimizer.step()
        elif not self._pulled:
            optimizer.step()
