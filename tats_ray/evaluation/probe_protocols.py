"""How the heads of a probe are trained: the protocols of method section 9 and of V-JEPA 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from tats_ray.core.errors import UsageError

HeadName = Literal["batch_norm", "layer_norm", "attentive"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRecipe:
    """How heads are trained. Every learning rate is tried with every weight decay."""

    head: HeadName
    base_lrs: tuple[float, ...]
    """For a batch of 256; the real ones scale with the batch."""
    weight_decays: tuple[float, ...]
    epochs: int
    warmup_epochs: int
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name, values in (("learning rate", self.base_lrs), ("epochs", (self.epochs,))):
            if not values or min(values) <= 0:
                raise UsageError(f"{name} must be above 0, got {values}")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise UsageError(f"weight decay must be 0 or more, got {self.weight_decays}")
        if self.batch_size < 2:
            raise UsageError(f"batch size must be at least 2, got {self.batch_size}")

    @property
    def grid(self) -> list[tuple[float, float]]:
        """(base learning rate, weight decay) of every head."""
        return list(product(self.base_lrs, self.weight_decays))


# The grids hold the values of method section 9: 0.1 and 0, 1e-3 and 0.05. Those of the attentive
# probe are V-JEPA 2's twenty heads.
RECIPES = {
    "linear": ProbeRecipe(
        head="batch_norm",
        base_lrs=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        weight_decays=(0.0, 1e-4, 1e-2),
        epochs=100,
        warmup_epochs=10,
    ),
    "ft-like": ProbeRecipe(
        head="layer_norm",
        base_lrs=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        weight_decays=(0.01, 0.05, 0.4),
        epochs=100,
        warmup_epochs=5,
    ),
    "attentive": ProbeRecipe(
        head="attentive",
        base_lrs=(1e-4, 3e-4, 1e-3, 3e-3, 5e-3),
        weight_decays=(0.01, 0.1, 0.4, 0.8),
        epochs=20,
        warmup_epochs=2,
    ),
}


def recipe(
    kind: Literal["linear", "attentive"],
    *,
    preset: Literal["sgd", "ft-like"] = "sgd",
    epochs: int = 0,
    batch_size: int = 0,
    lrs: Sequence[float] = (),
    weight_decays: Sequence[float] = (),
) -> ProbeRecipe:
    """A named recipe, with what is given changed.

    Raises:
        UsageError: for a preset that is not of this kind, or a number out of range.
    """
    if kind != "linear" and preset != "sgd":
        raise UsageError(f"preset {preset} is for the linear probe, not for {kind}; leave it out")
    base = RECIPES["ft-like" if preset == "ft-like" else kind]
    return replace(
        base,
        epochs=epochs or base.epochs,
        batch_size=batch_size or base.batch_size,
        base_lrs=tuple(lrs) or base.base_lrs,
        weight_decays=tuple(weight_decays) or base.weight_decays,
    )
