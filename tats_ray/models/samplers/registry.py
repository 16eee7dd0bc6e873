"""What is known of a sampler before it is built, and how `sampler.name` finds it.

Ours are entries of this kind, one file each. A sampler from another package is one class or one
function: a network (`torch.nn.Module`) learns, anything else that can be called is a fixed rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from tats_ray.config.plugins import SAMPLERS, load_named, one_line
from tats_ray.config.schema import SamplerConfig
from tats_ray.core.errors import UsageError, did_you_mean
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.models.policy import FixedPolicy, SamplerPolicy


def _any_number(ratio: float, grid: TokenGrid) -> int:
    return grid.num_visible(ratio)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A registry entry: everything that runs, plans and commands ask about a sampler."""

    shows: str
    """Which tokens, in words."""
    learns: bool = False
    needs_motion: bool = False
    """Draws by the true motion of each clip, which must lie beside its video."""
    has_published_names: bool = False
    """Published checkpoints hold its weights, under names of their own."""
    num_visible: Callable[[float, TokenGrid], int] = _any_number
    """(mask ratio, grid) -> tokens that it shows of a clip.

    Raises:
        UsageError: for a ratio that leaves nothing to show or to hide.
    """
    build: Callable[[SamplerConfig, TokenGrid, int, int], MaskPolicy]
    """(configuration, grid, width of a token, heads of the encoder) -> the policy."""


def find_sampler(config: SamplerConfig) -> Sampler:
    """The entry of `sampler.name`. Builds no network.

    Raises:
        UsageError: for a name that is unknown or cannot be loaded, and for what is no sampler.
    """
    found = load_named("sampler.name", config.name, SAMPLERS)
    if isinstance(found, Sampler):
        return found
    is_class = isinstance(found, type)
    if is_class and issubclass(found, nn.Module):
        return Sampler(shows="what it has learned to", learns=True, build=partial(_wrapped, found))
    rule = _made(found, config) if is_class else found
    if not callable(rule) or isinstance(rule, nn.Module):
        raise UsageError(
            f"sampler.name {config.name!r} draws no masks; name a class of torch.nn.Module, a "
            "function that draws, or a class whose objects can be called to draw"
        )
    if not is_class:
        _check_options(rule, config, num_given=4)
    bound = rule if is_class else partial(rule, **config.options)
    return Sampler(
        shows="what its rule draws",
        num_visible=getattr(rule, "num_visible", _any_number),
        build=lambda _config, grid, _width, _num_heads: FixedPolicy(grid, bound),
    )


def learned_policy(network: nn.Module, width: int, config: SamplerConfig) -> SamplerPolicy:
    """A network from `B N D` tokens to `B N` logits as the policy that a configuration asks for."""
    return SamplerPolicy(
        network,
        width,
        temperature=config.temperature,
        shares_trunk=config.value_shares_trunk,
    )


def _wrapped(
    network: type[nn.Module], config: SamplerConfig, grid: TokenGrid, width: int, num_heads: int
) -> SamplerPolicy:
    return learned_policy(_made(network, config, width, grid), width, config)


def _made(target: type[Any], config: SamplerConfig, *arguments: object) -> Any:
    """`target(*arguments, **options)`, its errors in one line."""
    _check_options(target, config, num_given=len(arguments))
    try:
        return target(*arguments, **config.options)
    except Exception as error:  # code of another package, which may fail in any way
        raise UsageError(
            f"sampler.name {config.name} cannot be built: {type(error).__name__}: {one_line(error)}"
        ) from error


def _check_options(target: Callable[..., Any], config: SamplerConfig, *, num_given: int) -> None:
    """Refuse an option that is no argument beyond the first, which a run gives."""
    own = list(inspect.signature(target).parameters.values())[num_given:]
    if any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in own):
        return
    known = [argument.name for argument in own]
    for name in config.options:
        if name not in known:
            raise UsageError(
                f"sampler.options.{name} is not an argument of sampler.name {config.name}"
                f"{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}"
            )
