"""Weights into a network: what fits is counted, what does not is named."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tats_ray.core.errors import CheckpointError
from tats_ray.learning.naming import Weights

ENOUGH = 0.95
"""Share of a network's tensors that a checkpoint must bring."""


@dataclass(frozen=True)
class Fit:
    """How a set of tensors fits a network."""

    loaded: int
    total: int
    ignored: int
    missing: tuple[str, ...]
    reshaped: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"loaded {self.loaded}/{self.total}, ignored {self.ignored}"

    @property
    def problems(self) -> str:
        """What did not fit, by name, the first few of each kind."""
        return "; ".join(
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("of another size", self.reshaped), ("missing", self.missing))
            if names
        )


def fit(network: nn.Module, weights: Weights, *, ignored: int = 0, only: str = "") -> Fit:
    """Put into `network` what fits it; see `demand` for whether that was enough.

    Args:
        ignored: tensors of the file that were set aside before.
        only: beginning of the names that count.
    """
    own = {name: value for name, value in network.state_dict().items() if name.startswith(only)}
    shared = sorted(own.keys() & weights.keys())
    same = {name: weights[name] for name in shared if weights[name].shape == own[name].shape}
    reshaped = tuple(
        f"{name} {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in shared
        if name not in same
    )
    network.load_state_dict(same, strict=False)
    ignored += len(weights.keys() - own.keys())
    return Fit(len(same), len(own), ignored, tuple(sorted(own.keys() - weights.keys())), reshaped)


def demand(found: Fit, *, source: str, way_out: str) -> None:
    """Refuse what brings too little of a network.

    Raises:
        CheckpointError: with counts and names.
    """
    if found.loaded < ENOUGH * found.total:
        raise CheckpointError(f"{source}: {found}, under {ENOUGH:.0%}: {found.problems}; {way_out}")


def same_tokens(weights: Weights, *, width: int, patch: int, tubelet: int, source: str) -> None:
    """Refuse weights whose tokens are cut or embedded in another size.

    Raises:
        CheckpointError: with both sizes.
    """
    kernel = weights.get("encoder.patch_embed.proj.weight")
    if kernel is None or tuple(kernel.shape) == (width, 3, tubelet, patch, patch):
        return
    there = tuple(kernel.shape)
    raise CheckpointError(
        f"{source} has tokens of {there[2]} frames by {there[3]} pixels and width {there[0]}, the "
        f"model of {tubelet} by {patch} and width {width}; set model.size, model.tubelet and "
        "model.patch alike"
    )
