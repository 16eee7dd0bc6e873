"""Calls to actors that may be restarting."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError

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


def replaced(name: str, incarnation: str, present: str) -> str:
    """Why a call of an incarnation is refused."""
    if not present:
        return f"the {name} died and was restarted empty"
    return f"incarnation {incarnation} was replaced by {present}"
