"""Calls to actors that may be restarting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError

from tats_ray.core.errors import PeerLostError

GRACE_S = 30.0
"""An actor's own deadline passes first, and its message says what was missing."""
_PAUSE_S = 0.5


def call_restarting(method: Any, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
    """Call an actor's method, again and again while Ray is still starting the actor anew.

    For calls that may be repeated. Without this, one death would be counted as several failures
    on a machine where the actor takes longer to start than the learner that calls it.

    Raises:
        TimeoutError: when the actor was not back in time.
        ActorDiedError: when it will not come back.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ray.get(
                method.remote(*args, **kwargs), timeout=max(deadline - time.monotonic(), 0.0)
            )
        except ActorUnavailableError as error:
            if time.monotonic() + _PAUSE_S >= deadline:
                raise TimeoutError(f"waited {timeout_s:g} s for {error}") from error
            time.sleep(_PAUSE_S)
        except GetTimeoutError as error:
            raise TimeoutError(f"waited {timeout_s:g} s for an answer from an actor") from error


def gather(replies: Sequence[Any], timeout_s: float) -> list[Any]:
    """Answers of actors that work together.

    Raises:
        RayError: where some fail, the error that made the others fail.
    """
    try:
        found: list[Any] = ray.get(list(replies), timeout=timeout_s)
        return found
    except RayError as error:
        if len(replies) == 1:
            raise
        known, errors = ray.wait(list(replies), num_returns=len(replies), timeout=GRACE_S)[0], []
        for reply in known:
            try:
                ray.get(reply, timeout=timeout_s)
            except RayError as one:
                errors.append(one)
        raise min(errors, key=_distance, default=error) from None


def _distance(error: RayError) -> int:
    """From the cause: a death comes first, and last what only met it."""
    inner = getattr(error, "cause", None) or error
    if isinstance(inner, RayActorError):
        return 0
    return 2 if isinstance(inner, PeerLostError) or not getattr(inner, "is_own", True) else 1


def replaced(name: str, incarnation: str, present: str) -> str:
    """Why a call of an incarnation is refused."""
    if not present:
        return f"the {name} died and was restarted empty"
    return f"incarnation {incarnation} was replaced by {present}"
