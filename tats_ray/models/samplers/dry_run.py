"""A sampler from another package, tried on random tokens before a run starts."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config.plugins import SAMPLERS, tried
from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.policy import FixedPolicy, SamplerPolicy, is_learned
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.models.zoo import SIZES, build_policy, num_visible

_NUM_CLIPS = 2


def check_sampler(
    sampler: SamplerConfig, model: ModelConfig, grid: TokenGrid, *, seed: int
) -> None:
    """Build the policy, and have one from another package draw once.

    Raises:
        UsageError: for what it would make the run fail with, in one line.
    """
    if sampler.name in SAMPLERS:
        with torch.device("meta"):  # for what its builder refuses, without its memory
            build_policy(sampler, model, grid, seed=seed)
        return
    _check_count(sampler, grid)
    policy = build_policy(sampler, model, grid, seed=seed)
    if is_learned(policy):
        _check_network(sampler.name, policy, grid, SIZES[model.size].width, seed)
    elif type(policy) is FixedPolicy:  # one of another class may need more than a grid
        _check_rule(sampler.name, policy, num_visible(sampler, grid), seed)


def _check_count(sampler: SamplerConfig, grid: TokenGrid) -> None:
    asked = f"sampler.name {sampler.name}: num_visible({sampler.mask_ratio}, grid)"
    rule = find_sampler(sampler).num_visible
    count = tried(sampler.name, f"{asked} fails", rule, sampler.mask_ratio, grid)
    if type(count) is not int or not 0 < count < grid.num_tokens:
        raise UsageError(
            f"{asked} is {count!r}; return a whole number from 1 to {grid.num_tokens - 1}"
        )


def _check_network(
    name: str, policy: SamplerPolicy, grid: TokenGrid, width: int, seed: int
) -> None:
    network = policy.sampler
    parameters = list(network.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        lack = "all of its parameters are frozen" if parameters else "it has no parameters to train"
        way_out = "set requires_grad of some" if parameters else "give it some"
        raise UsageError(
            f"sampler.name {name} is a torch.nn.Module, so it learns, but {lack}; {way_out}, or "
            "draw by a function or a plain class"
        )
    tokens = torch.randn(
        _NUM_CLIPS, grid.num_tokens, width, generator=stream(seed, "sampler", "dry run")
    )
    logits = tried(name, f"sampler.name {name} fails on random tokens", network, tokens)
    wanted = (_NUM_CLIPS, grid.num_tokens)
    if not isinstance(logits, Tensor) or logits.shape != wanted or not logits.is_floating_point():
        raise UsageError(
            f"sampler.name {name} returned {kind_of(logits)} for tokens of shape "
            f"{tuple(tokens.shape)}; return one logit for each token, floats of shape {wanted}"
        )
    if not torch.isfinite(logits).all():
        raise UsageError(
            f"sampler.name {name} returned NaN or infinite logits for random tokens; return finite "
            "ones"
        )
    if not logits.requires_grad:
        raise UsageError(
            f"sampler.name {name} returned logits without a gradient, so it cannot learn; do not "
            "detach them"
        )


def _check_rule(name: str, policy: FixedPolicy, count: int, seed: int) -> None:
    grid = policy.grid
    generator = stream(seed, "sampler", "dry run")
    arguments = (grid, _NUM_CLIPS, count, generator)
    drawn = tried(name, f"sampler.name {name} fails on random tokens", policy.rule, *arguments)
    wanted = (_NUM_CLIPS, count)
    if not isinstance(drawn, Tensor) or drawn.shape != wanted or drawn.dtype != torch.int64:
        raise UsageError(
            f"sampler.name {name} drew {kind_of(drawn)}; return the indices of the {count} visible "
            f"tokens of each clip, int64 of shape {wanted}, or say another number by num_visible"
        )
    low, high = int(drawn.min()), int(drawn.max())
    if low < 0 or high >= grid.num_tokens:
        raise UsageError(
            f"sampler.name {name} drew token {low if low < 0 else high}; a clip has the tokens "
            f"0 to {grid.num_tokens - 1}"
        )
    distinct = min(len(set(row)) for row in drawn.tolist())
    if distinct < count:
        raise UsageError(
            f"sampler.name {name} drew {count - distinct} of {count} tokens twice in a clip; draw "
            "each at most once"
        )


def kind_of(value: object) -> str:
    """Type, and shape where there is one."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
