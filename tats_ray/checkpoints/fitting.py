"""Load weights into a network: count the tensors that fit, name those that do not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count

from torch import Tensor, nn

from tats_ray.checkpoints.foreign_names import Weights
from tats_ray.core.errors import CheckpointError

ENOUGH = 0.95
"""Share of a network's tensors that a checkpoint must bring."""


@dataclass(frozen=True)
class WeightFit:
    """How well a set of tensors fits a network."""

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
            for what, names in (
                ("of a different size or type", self.reshaped),
                ("missing", self.missing),
            )
            if names
        )


def fit(network: nn.Module, weights: Weights, *, ignored: int = 0, only: str = "") -> WeightFit:
    """Put into `network` what fits it; see `require_fit` for whether that was enough.

    Args:
        ignored: tensors of the file that were set aside before.
        only: beginning of the names that count.
    """
    found = compare(network, weights, ignored=ignored, only=only)
    own = network.state_dict()
    same = {n: v for n, v in weights.items() if n in own and _form(v) == _form(own[n])}
    network.load_state_dict({n: v for n, v in same.items() if n.startswith(only)}, strict=False)
    return found


def compare(network: nn.Module, weights: Weights, *, ignored: int = 0, only: str = "") -> WeightFit:
    """What `fit` would load, of which nothing is; a network on the meta device will do."""
    own = {name: value for name, value in network.state_dict().items() if name.startswith(only)}
    shared = sorted(own.keys() & weights.keys())
    reshaped = tuple(
        f"{name} {_form(weights[name])} in the file, {_form(own[name])} in the model"
        for name in shared
        if _form(weights[name]) != _form(own[name])
    )
    return WeightFit(
        len(shared) - len(reshaped),
        len(own),
        ignored + len(weights.keys() - own.keys()),
        tuple(sorted(own.keys() - weights.keys())),
        reshaped,
    )


def _form(value: Tensor) -> str:
    """Shape, and the type where it is not floating: whole numbers are codes of something else."""
    kind = "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
    return f"{tuple(value.shape)}{kind}"


def require_fit(found: WeightFit, *, source: str, way_out: str) -> None:
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


def in_order(weights: Weights, source: str) -> None:
    """Refuse stacks with a gap: networks are built as deep as the last number says.

    Raises:
        CheckpointError: with the number that is there and the one that is not.
    """
    for stack in ("encoder", "decoder"):
        matches = (re.match(rf"{stack}\.blocks\.(\d+)\.", name) for name in weights)
        found = {int(match[1]) for match in matches if match}
        gap = next(index for index in count() if index not in found)
        if gap < len(found):
            raise CheckpointError(
                f"{source} has {stack}.blocks.{max(found)} but no {stack}.blocks.{gap}; use a "
                "complete checkpoint"
            )


def num_stored(weights: Weights) -> int:
    """Values that are really there: tensors that share memory count once."""
    storages: dict[int, int] = {}
    for value in weights.values():
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes() // value.element_size()
    return sum(storages.values())
