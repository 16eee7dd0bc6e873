"""What the driver says of restarts, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from tats_ray.config.load import parse_config
from tats_ray.core.errors import PeerFailedError, StaleError
from tats_ray.runtime.driver import watch as watch_module
from tats_ray.runtime.driver.causes import first_cause
from tats_ray.runtime.driver.watch import RunFailedError, SilenceError, Watch


class Scene:
    """A watch over a log that says what the test wants, and a clock that it sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, max_failures: int = 3, **more: int) -> None:
        self.replies: list[Any] = []
        self.asked: list[tuple[Any, ...]] = []
        self.stops = 0
        self.heard: list[Any] = []
        self.now = 0.0
        self.life = "life"
        log = SimpleNamespace(
            drain=SimpleNamespace(remote=self._drain),
            request_stop=SimpleNamespace(remote=self._stop),
        )
        monkeypatch.setattr(watch_module.ray, "get", lambda reply, timeout: reply())
        clock = SimpleNamespace(
            monotonic=lambda: self.now, time=lambda: self.now, sleep=lambda seconds: None
        )
        monkeypatch.setattr(watch_module, "time", clock)
        cluster = {"timeout_s": 100, "max_failures": max_failures, **more}
        config = parse_config({"cluster": cluster})
        self.watch = Watch(log, config, self.heard.append, lambda: "needs 2 CPU, has 1 CPU")

    def _drain(self, *asked: Any) -> Callable[[], Any]:
        self.asked.append(asked)
        reply = self.replies.pop(0)

        def answer() -> Any:
            if isinstance(reply, Exception):
                raise reply
            return (self.life, len(self.asked), reply)

        return answer

    def _stop(self) -> Callable[[], None]:
        self.stops += 1
        return lambda: None

    def poll(self, *replies: Any) -> None:
        self.replies = list(replies)
        while self.replies:
            self.watch.poll()

    @property
    def notes(self) -> list[str]:
        return [event["text"] for event in self.heard if event["kind"] == "note"]


def start(step: int, time: float = 0.0, num_learners: int = 2) -> dict[str, Any]:
    is_resumed = step > 0
    return {
        "kind": "start",
        "step": step,
        "is_resumed": is_resumed,
        "num_learners": num_learners,
        "time": time,
    }


def reached(step: int) -> dict[str, Any]:
    return {"kind": "reached", "step": step}


def failure(text: str, time: float = 0.0) -> dict[str, Any]:
    return {"kind": "failure", "text": text, "time": time}


def test_restart_says_what_was_lost_to_whom_and_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.poll([start(0)], [reached(16)], [failure("the rollout buffer died", 50.0)])
    scene.poll([failure("rank 0: something that followed", 51.0)], [start(12, 59.0)])
    scene.poll([reached(13)], [failure("the learner of rank 1 died", 70.0), start(12, 78.0)])
    assert scene.notes == [
        "lost 4 steps: restarted from step 12, 9 s after the rollout buffer died; restart 1 of at "
        "most 3",
        "lost 1 step: restarted from step 12, 8 s after the learner of rank 1 died; restart 2 of "
        "at most 3",
    ]
    assert [event["kind"] for event in scene.heard] == ["start", "note", "start", "note", "start"]


def test_elastic_run_that_went_on_with_other_learners_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, num_workers=2, min_workers=1)
    scene.poll([start(0)], [reached(7)], [failure("the learner of rank 1 died", 50.0)])
    scene.poll([start(6, 59.0, 1)], [reached(8)], [start(6, 90.0, 2)])
    assert scene.notes == [
        "lost 1 step: restarted from step 6, 9 s after the learner of rank 1 died; restart 1 of at "
        "most 3",
        "lost 2 steps: restarted from step 6 with 2 learners instead of 1: the cluster changed",
    ]


def test_log_that_came_back_is_named_though_it_has_forgotten_what_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.poll([start(0), reached(7)])
    scene.life, scene.now = "another", 20.0
    scene.poll([], [failure("rank 0: what followed"), start(6, 29.0)])
    assert scene.notes == [
        "lost 1 step: restarted from step 6, 9 s after the run log died; restart 1 of at most 3"
    ]


def test_restarts_are_counted_over_the_whole_run_whoever_of_ray_train_saw_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, max_failures=2)
    scene.poll([start(0), reached(7)])
    for _ in range(2):
        scene.poll([failure("the learner of rank 1 died"), start(6), reached(7)])
    with pytest.raises(RunFailedError) as error:
        scene.poll([failure("the rollout buffer died"), start(6)])
    assert str(error.value) == (
        "the rollout buffer died; the run has already been restarted 2 times (cluster.max_failures)"
    )


def test_resumed_run_has_lost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.poll([start(12)])
    assert scene.notes == []


def test_events_are_acknowledged_once_they_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    gone = ActorUnavailableError("gone", None)
    scene.poll([start(0)], gone, [reached(1)])
    assert [asked[:2] for asked in scene.asked] == [("", 0), ("life", 1), ("life", 1)]


def test_wish_to_stop_is_repeated_for_a_log_that_may_have_forgotten_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.poll([start(0)])
    assert scene.stops == 0
    scene.watch.wants_stop = True
    scene.poll([], [])
    assert scene.stops == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ActorDiedError(), r"the run log died more than 3 times \(cluster\.max_failures\)"),
        (GetTimeoutError(), "the run log did not answer for 100 s"),
    ],
)
def test_log_that_does_not_come_back_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    with pytest.raises(RunFailedError, match=message):
        Scene(monkeypatch).poll(error)


def test_silence_ends_the_run_with_what_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.now = 260
    scene.poll([])
    scene.now = 261
    with pytest.raises(SilenceError, match=r"did not start within 260 s .*; needs 2 CPU, has 1"):
        scene.poll([])

    scene = Scene(monkeypatch)
    scene.poll([start(0)])
    for step in (1, 2):
        scene.now = step * 250
        scene.poll([reached(step)])
    scene.now = 500 + 250
    scene.poll([reached(2)])  # said again, but not done again
    scene.now = 500 + 261
    with pytest.raises(SilenceError, match=r"no step was finished for 260 s .* last one was 2"):
        scene.poll([reached(2)])

    scene = Scene(monkeypatch)
    scene.poll([start(0), failure("the learner of rank 1 died with its node")])
    scene.now = 261
    with pytest.raises(
        RunFailedError, match=r"did not start .* after the learner of rank 1 died with its node; "
    ):
        scene.poll([])


def test_cause_is_the_first_and_innermost() -> None:
    def caused(error: Exception, cause: Exception) -> Exception:
        error.__cause__ = cause
        return error

    def group(failures: dict[int, Exception]) -> Exception:
        error = RuntimeError("wrapping")
        error.worker_failures = failures  # type: ignore[attr-defined]
        return error

    class WorkerHealthCheckFailedError(Exception):
        pass

    died = ActorUnavailableError("RPC failed", bytes(16))
    rooms = {bytes(16).hex(): "weight store"}
    dead = WorkerHealthCheckFailedError("A worker health check failed.\nThe actor died")
    stale = StaleError("the run log died and was restarted empty")
    gloo = RuntimeError("Connection closed by peer")
    for error, expected in (
        (ValueError("first\nlast line"), "ValueError: last line"),
        (caused(RuntimeError("outer"), ValueError("inner")), "ValueError: inner"),
        (died, "the weight store died"),
        (caused(RuntimeError("outer"), died), "the weight store died"),
        (group({0: gloo, 1: dead}), "the learner of rank 1 died"),
        (group({0: gloo, 1: stale}), "the run log died and was restarted empty"),
        (group({0: stale, 1: dead}), "the learner of rank 1 died"),
        (group({1: gloo, 0: ValueError("x")}), "rank 0: ValueError: x"),
        (PeerFailedError("policy learner: no memory"), "policy learner: no memory"),
        (caused(PeerFailedError("algorithm a:B failed"), KeyError("x")), "algorithm a:B failed"),
        (ValueError(), "ValueError: no message"),
    ):
        assert first_cause(error, rooms) == expected
    node = WorkerHealthCheckFailedError("failed\nThe actor died because its node has died.")
    assert first_cause(group({1: node}), rooms) == "the learner of rank 1 died with its node"
