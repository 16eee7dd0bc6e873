"""What a run asks of an algorithm from another package, tried before it starts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.plugins import tried
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import Algorithm, Shareable
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.dry_run import kind_of
from tats_ray.models.zoo import SIZES, build_learned_policy, num_visible
from tats_ray.ops.rewards import find_reward

_NUM_CLIPS = 2


def check_algorithm(config: RunConfig, grid: TokenGrid) -> None:
    """Have an algorithm from another package learn once, and save and load what it holds.

    Raises:
        UsageError: for what it would make the run fail with, in one line.
    """
    name = config.algorithm.name
    if ":" not in name:
        return
    masks: Any = _tried(name, "masks_per_clip", lambda: config.algorithm.masks_per_clip)
    if type(masks) is not int or masks < 1:
        _refuse(name, f"masks_per_clip is {masks!r}; return a whole number, 1 or more")
    policy = build_learned_policy(config.sampler, config.model, grid, seed=config.seed)
    algorithm = _tried(name, "build(policy)", lambda: config.algorithm.build(policy))
    if not isinstance(algorithm, Algorithm):
        _refuse(
            name,
            f"build(policy) returned {kind_of(algorithm)}; return an object with update, "
            "state_dict and load_state_dict, such as a PolicyGradient",
        )
    rollout = _random_rollout(config, policy, grid)
    if isinstance(algorithm, PolicyGradient):
        _check_loss(name, algorithm, rollout)
    generator = stream(config.seed, "algorithm", "trial")
    metrics = _tried(
        name,
        "update with a random rollout",
        lambda: algorithm.update([rollout], generator=generator),
    )
    _check_metrics(name, "update", metrics)
    _tried(name, "state_dict or load_state_dict", lambda: _save_and_load(algorithm))


def check_together(config: RunConfig, grid: TokenGrid, learners: str, way_out: str) -> None:
    """Whether several learners can learn one policy together.

    Args:
        learners: how many, and the field that says so, in words.
        way_out: a flag with which one learns by itself.

    Raises:
        UsageError: naming what averages nothing over them.
    """
    policy = build_learned_policy(config.sampler, config.model, grid, seed=config.seed)
    if not isinstance(config.algorithm.build(policy), Shareable):
        raise UsageError(
            f"algorithm.name {config.algorithm.name} cannot be shared by {learners}; give it a "
            "method join(group) as tats_ray.core.protocols.Shareable says, or use "
            f"{way_out}"
        )
    observe = getattr(policy.sampler, "observe", None)
    if observe is not None and "group" not in inspect.signature(observe).parameters:
        raise UsageError(
            f"sampler.name {config.sampler.name} keeps statistics that {learners} do not share; "
            f"let its observe take (tokens, group), or use {way_out}"
        )


def _random_rollout(config: RunConfig, policy: SamplerPolicy, grid: TokenGrid) -> Rollout:
    generator = stream(config.seed, "algorithm", "rollout")
    masks = config.algorithm.masks_per_clip
    clips = torch.randn(
        _NUM_CLIPS, grid.num_tokens, SIZES[config.model.size].width, generator=generator
    )
    tokens = clips.repeat_interleave(masks, 0)
    drawn = policy.act(tokens, num_visible(config.sampler, grid), generator=generator)
    error = torch.rand(drawn.log_prob.shape, generator=generator).scatter(1, drawn.visible_idx, 0.0)
    pay = find_reward(_tried(config.algorithm.name, "default_reward", lambda: config.reward))
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=pay(error, drawn.visible_idx, random_error=error.mean(1), motion=error),
        policy_version=0,
        step=0,
        rank=0,
        masks_per_clip=masks,
    )


def _check_loss(name: str, algorithm: PolicyGradient, rollout: Rollout) -> None:
    found: Any = _tried(
        name,
        "loss of a random rollout",
        lambda: algorithm.loss(rollout, algorithm.evaluate(rollout)),
    )
    if not isinstance(found, tuple) or len(found) != 2:
        _refuse(name, f"loss returned {kind_of(found)}; return the scalar and a dictionary to log")
    loss, metrics = found
    if not isinstance(loss, Tensor) or loss.shape != ():
        _refuse(name, f"loss returned {kind_of(loss)} to minimise; return a tensor of shape ()")
    if not torch.isfinite(loss):
        _refuse(name, f"loss is {loss.item()} on a random rollout; return a finite one")
    weights = [w for w in algorithm.policy.sampler.parameters() if w.requires_grad]
    slopes = torch.autograd.grad(loss, weights, allow_unused=True) if loss.requires_grad else ()
    if all(slope is None for slope in slopes):
        _refuse(name, "loss has no gradient to the sampler; compute it from now.log_prob")
    _check_metrics(name, "loss", metrics)


def _check_metrics(name: str, method: str, metrics: Any) -> None:
    if not isinstance(metrics, Mapping):
        _refuse(name, f"{method} returned {kind_of(metrics)} to log; return a dictionary of floats")
    for key, value in metrics.items():
        is_scalar = isinstance(value, Tensor) and value.shape == ()
        if not (is_scalar or isinstance(value, int | float)):
            _refuse(
                name,
                f"{method} logs {kind_of(value)} as {key!r}; log a number, or a tensor of shape ()",
            )


def _save_and_load(algorithm: Algorithm) -> None:
    """As a checkpoint does."""
    state = algorithm.state_dict()
    numbers = json.loads(json.dumps(state["numbers"]))
    algorithm.load_state_dict({"optimizer": state["optimizer"], "numbers": numbers})


def _tried(name: str, what: str, function: Callable[[], Any]) -> Any:
    return tried(name, f"algorithm.name {name}: {what} fails", function)


def _refuse(name: str, what: str) -> NoReturn:
    raise UsageError(f"algorithm.name {name}: {what}")
