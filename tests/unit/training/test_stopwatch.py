"""Where the time of a run goes, on a host that computes and on a GPU that is behind it."""

from __future__ import annotations

import math

import pytest
import torch

from tats_ray.training.stopwatch import Stopwatch


def test_stopwatch_shares_are_of_the_time_since_the_last_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stopwatch = Stopwatch(started=100.0)
    for room, seconds in (("mae", 2.0), ("policy", 1.0), ("mae", 3.0)):
        with stopwatch(room):
            now[0] += seconds
    now[0] += 4.0
    assert stopwatch.read() == (10.0, {"mae": 0.5, "policy": 0.1})
    now[0] += 1.0
    assert stopwatch.read() == (1.0, {})


class Device:
    """Does what it is asked for in order, while the host goes on."""

    host = free_at = 100.0
    waits = 0

    def work(self, seconds: float) -> None:
        self.free_at = max(self.free_at, self.host) + seconds

    def event(self) -> Event:
        return Event(self)


class Event:
    def __init__(self, device: Device) -> None:
        self.device, self.at = device, math.nan

    def record(self) -> None:
        self.at = max(self.device.free_at, self.device.host)

    def query(self) -> bool:
        return self.at <= self.device.host

    def synchronize(self) -> None:
        self.device.waits += not self.query()
        self.device.host = max(self.device.host, self.at)

    def elapsed_time(self, later: Event) -> float:
        assert self.query()
        assert later.query()
        return 1e3 * (later.at - self.at)


def test_on_a_gpu_a_room_has_the_time_of_its_work_and_nobody_waits_before_a_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device()
    monkeypatch.setattr("time.perf_counter", lambda: device.host)
    watch = Stopwatch(device.event, started=100.0)
    for _ in range(2):
        with watch("mae"):
            device.host += 0.125
            device.work(3.0)
        with watch("policy"):
            with watch("handover"):
                device.host += 0.125
            device.work(1.0)
    assert (device.host, device.waits) == (100.5, 0)
    total, shares = watch.read()
    assert total == 8.125  # of which the GPU did not yet know of any work for 0.125
    assert shares == pytest.approx({"mae": 6.125 / total, "handover": 0, "policy": 2 / total})
    with watch("data"):
        device.host += 2.0  # the GPU waits for clips
    with watch("mae"):
        device.work(2.0)
    device.host += 4.0
    with watch("data"):
        pass
    assert watch.seconds == {"data": 2.0, "mae": 2.0}  # done, and so no longer kept as events
    assert watch.read() == (6.0, pytest.approx({"data": 1 / 3, "mae": 1 / 3}))


def test_device_decides_whose_clock_counts() -> None:
    assert Stopwatch.of(torch.device("cpu")).event is None
    assert Stopwatch.of(torch.device("cuda")).event is not None
