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

from tats_ray.config.plugins import SAMPLERS, load_named, nearest, one_line
from tats_ray.config.schema import SamplerConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.models.policy import FixedPolicy, SamplerPolicy


def _any_number(ratio: float, grid: TokenGrid) -> int:
    return grid.num_visible(ratio)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """An entry: all that runs, plans and commands ask about a sampler."""

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
    if not callable(found) or isinstance(found, nn.Module):
        raise UsageError(
            f"sampler.name {config.name!r} is a {type(found).__name__}; name a class of "
            "torch.nn.Module, or a function or class that draws masks"
        )
    if isinstance(found, type) and issubclass(found, nn.Module):
        return Sampler(shows="what it has learned to", learns=True, build=partial(_wrapped, found))
    rule = _called(found, config) if isinstance(found, type) else partial(found, **config.options)
    return Sampler(
        shows="what its rule draws",
        num_visible=getattr(rule if isinstance(found, type) else found, "num_visible", _any_number),
        build=lambda _config, grid, _width, _heads: FixedPolicy(grid, rule),
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
    return learned_policy(_called(network, config, width, grid), width, config)


def _called(target: Callable[..., Any], config: SamplerConfig, *arguments: object) -> Any:
    """`target(*arguments, **options)`, its errors in one line.

    Raises:
        UsageError: for options that it does not take, and for whatever its own code raises.
    """
    known = inspect.signature(target).parameters
    is_open = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    unknown = [name for name in config.options if name not in known and not is_open]
    if unknown:
        own = list(known)[len(arguments) :]
        raise UsageError(
            f"sampler.options.{unknown[0]} is no argument of sampler.name {config.name}"
            f"{nearest(unknown[0], own)}; known: {', '.join(own) or 'none'}"
        )
    try:
        return target(*arguments, **config.options)
    except UsageError:
        raise
    except Exception as error:  # code of another package, which may fail in any way
        raise UsageError(
            f"sampler.name {config.name} cannot be built: {type(error).__name__}: {one_line(error)}"
        ) from error
