"""What is known of a sampler before it is built, and how `sampler.name` finds it.

Ours are entries of this kind, one file each. A sampler from another package is one class or one
function: a network (`torch.nn.Module`) learns, anything else that can be called is a fixed rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from torch import nn

from tats_ray.config.plugins import SAMPLERS, load_named, tried
from tats_ray.config.schema import SamplerConfig
from tats_ray.core.errors import UsageError, did_you_mean
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.models.policy import FixedPolicy, SamplerPolicy

POLICY_FIELDS = ("temperature", "value_shares_trunk", "uniform_share")
"""What `learned_policy` reads."""


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
    heeds: tuple[str, ...] = ()
    """Fields of `SamplerConfig` that shape it, besides name, options and mask ratio."""
    has_published_names: bool = False
    """Published checkpoints hold its weights, under names of their own."""
    num_visible: Callable[[float, TokenGrid], int] = _any_number
    """(mask ratio, grid) -> tokens that it shows of a clip.

    Raises:
        UsageError: for a ratio that leaves nothing to show or to hide.
    """
    build: Callable[[SamplerConfig, TokenGrid, int, int], MaskPolicy]
    """(configuration, grid, width of a token, heads of the encoder) -> the policy."""


def ignored_fields(config: SamplerConfig) -> list[str]:
    """Fields with other values than their defaults that the sampler does not heed."""
    heeded = {"name", "options", "mask_ratio", *find_sampler(config).heeds}
    return [
        f"sampler.{field.name}"
        for field in fields(config)
        if field.name not in heeded
        and getattr(config, field.name) != getattr(SamplerConfig(), field.name)
    ]


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
        return Sampler(
            shows="what it has learned to",
            learns=True,
            heeds=POLICY_FIELDS,
            build=partial(_wrapped, found),
        )
    rule = _made(found, config) if is_class else found
    if not callable(rule) or isinstance(rule, nn.Module):
        raise UsageError(
            f"sampler.name {config.name!r} draws no masks; name a class of torch.nn.Module, a "
            "function that draws, or a class whose objects can be called to draw"
        )
    options = {} if is_class else config.options
    _check_call(rule, config.name, "grid, num_clips, num_visible, generator", options)
    bound = partial(rule, **options)
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
        uniform_share=config.uniform_share,
    )


def _wrapped(
    network: type[nn.Module], config: SamplerConfig, grid: TokenGrid, width: int, num_heads: int
) -> SamplerPolicy:
    return learned_policy(_made(network, config, width=width, grid=grid), width, config)


def _made(target: Callable[..., Any], config: SamplerConfig, **given: object) -> Any:
    """`target(*given, **options)`, its errors in one line."""
    _check_call(target, config.name, ", ".join(given), config.options)
    made = partial(target, *given.values(), **config.options)
    return tried(config.name, f"sampler.name {config.name} cannot be built", made)


def _check_call(
    target: Callable[..., Any], name: str, given: str, options: Mapping[str, Any]
) -> None:
    """Refuse what does not take the arguments that a run gives, in this order, and the options."""
    try:
        signature = inspect.signature(target)
    except ValueError:  # of a function in C that says nothing about itself
        return
    names = [word for word in given.split(", ") if word]
    own = list(signature.parameters.values())[len(names) :]
    known = [argument.name for argument in own]
    takes_all = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in own)
    for option in options:
        if option not in known and not takes_all:
            raise UsageError(
                f"sampler.options.{option} is not an argument of sampler.name {name}"
                f"{did_you_mean(option, known)}; known: {', '.join(known) or 'none'}"
            )
    try:
        signature.bind(*names, **options)
    except TypeError as error:
        raise UsageError(
            f"sampler.name {name} takes {signature}, but a run gives it "
            f"({', '.join([*names, '**sampler.options'])}): {error}"
        ) from error
