"""Of several actors that fail together, the one that began it is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError, RayTaskError

from tats_ray.core.errors import NonFiniteError, PeerLostError
from tats_ray.runtime.actors import calls

LOST = RayTaskError("update", "", PeerLostError("lost its connection to another learner"))
OTHERS = RayTaskError("update", "", NonFiniteError("at MAE step 3", is_own=False))
OWN = RayTaskError("update", "", NonFiniteError("nan at MAE step 3"))
SHARD_DIED = RayTaskError("update", "", ActorDiedError())


@pytest.mark.parametrize(
    ("replies", "cause"),
    [
        ([LOST, ActorDiedError(), LOST], 1),
        ([LOST, SHARD_DIED], 1),
        ([SHARD_DIED, LOST], 0),
        ([OTHERS, OWN, OTHERS], 1),
        ([LOST, OWN], 1),
        ([1.0, LOST], 1),
        ([LOST], 0),
    ],
)
def test_a_death_or_the_error_of_its_own_is_raised_and_not_what_it_did_to_others(
    monkeypatch: pytest.MonkeyPatch, replies: list[Any], cause: int
) -> None:
    def get(asked: Any, timeout: float) -> Any:
        found = asked if isinstance(asked, list) else [asked]
        for one in found:
            if isinstance(one, RayError):
                raise one
        return asked

    made_up = SimpleNamespace(get=get, wait=lambda asked, **how: (asked, []))
    monkeypatch.setattr(calls, "ray", made_up)
    with pytest.raises(RayError) as failed:
        calls.gather(replies, 1.0)
    assert failed.value is replies[cause]


def test_answers_come_in_order_and_a_silence_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "ray", SimpleNamespace(get=lambda asked, timeout: asked))
    assert calls.gather((1, 2), 1.0) == [1, 2]

    def get(asked: Any, timeout: float) -> Any:
        raise GetTimeoutError("late")

    monkeypatch.setattr(
        calls, "ray", SimpleNamespace(get=get, wait=lambda asked, **how: ([], asked))
    )
    with pytest.raises(GetTimeoutError, match="late"):
        calls.gather((1, 2), 1.0)
