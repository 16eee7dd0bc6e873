"""What an environment is, as read from the object and measured on it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from tats_ray.envs.observations import FEATURES, ROUND_FEATURES
from tats_ray.envs.token_selection import TokenSelectionVectorEnv

from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted

BATCH = 32
_LONGEST = 1000
_TIMED_S = 0.5

Rows = list[tuple[str, str]]


def describe(env_id: str) -> Rows:
    """What to know before training on it: (what, answer).

    Raises:
        UsageError: for an id that is not registered, or cannot be made without arguments.
    """
    one = _make(gymnasium.make, env_id)
    many = _make(gymnasium.make_vec, env_id, num_envs=BATCH)
    inner = many.unwrapped
    own = inner if isinstance(inner, TokenSelectionVectorEnv) else None
    steps = len(_play(one))
    rows = [
        ("environment", f"{env_id}: {_first_line(type(inner))}"),
        ("state", _state(one.observation_space, own)),
        ("action", _action(one.action_space, own)),
        *(_reward(own) if own is not None else []),
        ("episode", _episode(steps)),
        *(_parts(own) if own is not None else []),
        ("determinism", _determinism(env_id)),
        ("ms per step", _speed(one, many, steps)),
    ]
    one.close()
    many.close()
    return rows


def _make(maker: Callable[..., Any], env_id: str, **options: Any) -> Any:
    try:
        return maker(env_id, **options)
    except UsageError:
        raise
    except Exception as error:  # making one runs its author's code, which may fail in any way
        spec = gymnasium.registry.get(env_id.rpartition(":")[2])
        if spec is not None and spec.entry_point is None and maker is gymnasium.make:
            raise UsageError(
                f"environment {env_id!r} has only a vector form, and the card plays single "
                "episodes; register an entry_point, too (docs/environments.md has one)"
            ) from error
        known = [name for name in gymnasium.registry if name.startswith("TATS/")]
        raise UsageError(
            f"environment {env_id!r} cannot be made: {' '.join(str(error).split())}; "
            f"known: {', '.join(known)}"
        ) from error


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().split("\n")[0]


def _state(space: Any, own: TokenSelectionVectorEnv | None) -> str:
    text = f"{space.shape} {space.dtype}, {math.prod(space.shape) * space.dtype.itemsize:,} bytes"
    if isinstance(space, spaces.Box):
        text += f", in [{space.low.min():g}, {space.high.max():g}]"
    if own is None:
        return text
    named = FEATURES if own.task.observation == "features" else ()
    named += ROUND_FEATURES if own.num_rounds is not None else ()
    of = f" per token: {', '.join(named)}" if named else ""
    return f"{own.task.observation}{of}; {text}"


def _action(space: Any, own: TokenSelectionVectorEnv | None) -> str:
    if own is None:
        return str(space)
    count = own.num_visible // (own.num_rounds or 1)
    reader = _first_line(type(own.task.action)).replace("`count`", str(count))
    rounds = "" if own.num_rounds is None else f" in each of {own.num_rounds} rounds"
    return f"{space}; {count} of {own.grid.num_tokens} tokens{rounds}. {reader}"


def _reward(own: TokenSelectionVectorEnv) -> Rows:
    """The reward's docstring, and its return for masks that do and do not show motion."""
    rows = [("reward", f"{own.task.reward_name}: {_first_line(own.task.reward.function)}")]
    if own.task.source is None or not isinstance(own.single_action_space, spaces.Box):
        return rows
    random = np.random.default_rng(0)
    blind, motion = random.random((2, BATCH, own.grid.num_tokens), np.float32)
    _, info = own.reset(seed=0)
    if "token_motion" not in info:
        return rows
    motion = np.clip(info["token_motion"] + 1e-3 * motion, 0.0, 1.0)
    gap = _return(own, motion) - _return(own, blind)
    mean, spread = gap.mean(), gap.std(ddof=1) / math.sqrt(BATCH)
    towards = "towards" if mean > 0 else "away from"
    clear = abs(mean) > 2 * spread
    rows.append(
        (
            "which way",
            f"the most moving tokens earn {mean:+.3f} +- {spread:.3f} more than random ones: "
            "this return pushes the policy "
            f"{towards if clear else 'neither towards nor away from'} motion",
        )
    )
    return rows


def _return(own: TokenSelectionVectorEnv, scores: Any) -> Any:
    own.reset(seed=0)
    total = np.zeros(own.num_envs)
    for _ in range(own.num_rounds or 1):
        _, reward, _, _, _ = own.step(scores)
        total += reward
    return total


def _parts(own: TokenSelectionVectorEnv) -> Rows:
    source = own.task.source
    clips = "clips come from the caller"
    if source is not None:
        clips = f"{counted(len(source), 'clip')} of its own ({type(source).__name__})"
    return [
        ("clips", f"{clips}, {own.grid.num_frames} frames of {own.grid.image_size} px"),
        ("scorer", f"{type(own.scorer).__name__}: {_first_line(own.scorer)}"),
    ]


def _episode(steps: int) -> str:
    if steps == 1:
        return "1 step, then terminated: a contextual bandit, where the discount has no effect"
    return (
        f"{steps} steps, then it ends" if steps < _LONGEST else f"still running after {steps} steps"
    )


def _play(one: Any, seed: int = 0) -> list[tuple[Any, float]]:
    """Observations and rewards of one episode of seeded random actions."""
    one.action_space.seed(seed)
    observation, _ = one.reset(seed=seed)
    seen, is_over = [(observation, 0.0)], False
    while not is_over and len(seen) <= _LONGEST:
        observation, reward, terminated, truncated, _ = one.step(one.action_space.sample())
        seen.append((observation, float(reward)))
        is_over = terminated or truncated
    return seen[1:]


def _determinism(env_id: str) -> str:
    first, second = (_play(_make(gymnasium.make, env_id), seed=7) for _ in range(2))
    same = len(first) == len(second) and all(
        reward == again and np.array_equal(one, other)
        for (one, reward), (other, again) in zip(first, second, strict=True)
    )
    return (
        f"same seed, same episode: {'bit for bit' if same else 'NO, they differ'} (two instances)"
    )


def _speed(one: Any, many: Any, steps: int) -> str:
    def batch() -> None:
        many.reset(seed=0)
        for _ in range(steps):
            many.step(many.action_space.sample())

    single, batched = _ms(lambda: _play(one)) / steps, _ms(batch) / steps
    ratio = single / (batched / BATCH)
    return (
        f"{single:.2f} at B = 1, {batched:.2f} at B = {BATCH}, resets included: {ratio:.1f} times "
        "as many clips per second"
    )


def _ms(play: Callable[[], object]) -> float:
    """Median over half a second, after one to warm up."""
    play()
    times: list[float] = []
    while sum(times) < _TIMED_S or len(times) < 5:
        began = time.perf_counter()
        play()
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e3
