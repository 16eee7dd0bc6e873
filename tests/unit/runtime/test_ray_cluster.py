"""What a person gets where no Ray answers, and which signals ask a run to stop."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

import pytest
import ray

from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.runtime.driver.launch import _stop_requests
from tats_ray.runtime.driver.ray_cluster import joined_cluster
from tats_ray.runtime.driver.watch import Watch


def join(address: str) -> None:
    with joined_cluster(RunConfig(cluster=ClusterConfig(address=address))):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_address_at_which_nobody_answers_is_told_at_once(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as held:  # bound and not listening: refused, and nobody else's
        held.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{held.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(UsageError, match=rf"no Ray cluster answers at {address} .*refused"):
            join(address)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("address", ["nowhere", "host:port", ""])
def test_any_failure_of_rays_start_is_one_line(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**options: Any) -> None:
        raise ConnectionError("first line\nsecond line")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UsageError) as caught:
        join(address)
    assert "\n" not in str(caught.value)
    expected = f"answers at {address}" if address else r"did not start on this machine (first line)"
    assert expected in str(caught.value)


class Asked(Watch):
    """The wish to stop, without the actors that pass it on."""

    def __init__(self) -> None:
        self.wants_stop = False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_asks_the_learners_to_save_and_stop(number: signal.Signals) -> None:
    watch, notes = Asked(), list[Any]()
    # Whoever started the tests, such as nohup, may have it ignored.
    own = signal.signal(number, signal.default_int_handler)
    try:
        with _stop_requests(watch, notes.append):
            os.kill(os.getpid(), number)
            assert watch.wants_stop
        assert "a checkpoint is saved" in notes[0]["text"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, own)


def test_hang_up_is_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        watch = Asked()
        with _stop_requests(watch, lambda event: None):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not watch.wants_stop
    finally:
        signal.signal(signal.SIGHUP, before)
