"""The learning rate of a run in words: where it never gets, and what an extension does to it."""

from __future__ import annotations

from dataclasses import dataclass

from tats_ray.core.words import counted
from tats_ray.ops.schedules import warmup_cosine


@dataclass(frozen=True)
class RateSchedule:
    """Warm-up and cosine of a run."""

    base: float
    minimum: float
    warmup_epochs: float
    epochs: int
    warmup_steps: int
    total_steps: int
    """Optimiser steps."""

    def rate(self, step: int) -> float:
        """Of an optimiser step."""
        return warmup_cosine(
            step,
            base=self.base,
            minimum=self.minimum,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
        )

    def notes(self) -> list[str]:
        """What a person would not expect of it."""
        if self.warmup_steps < self.total_steps:
            return []
        return [
            f"the learning rate never reaches {self.base:g}: the warm-up takes "
            f"{counted(self.warmup_epochs, 'epoch')}, the run {self.epochs}, so it ends at "
            f"{self.rate(self.total_steps - 1):.3g}; lower optim.warmup_epochs"
        ]

    def stretched_from(self, old: RateSchedule, step: int) -> str:
        """What becomes of a shorter run's schedule at the step where this one takes over."""
        before, after = old.rate(step), self.rate(step)
        change = f"jumps from {before:.3g} to {after:.3g}"
        if before == after:
            change = f"stays at {after:.3g}"
        return (
            f"{old.epochs} to {counted(self.epochs, 'epoch')}: the warm-up stays, and the cosine "
            f"is stretched over all of them, so at step {step} the learning rate {change}"
        )
