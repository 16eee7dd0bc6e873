"""Time of the test run: what may be tried again, and what is not started any more.

`TATS_TEST_DEADLINE` is a time in seconds since 1970. A test that would begin later is skipped and
named, so that a slow machine shows what it left out instead of failing for its slowness.
"""

from __future__ import annotations

import os
import time

import pytest

DEADLINE = "TATS_TEST_DEADLINE"
_LEFT_OUT = "left out: the time of this run is spent"
_TIMED_OUT = r"(Timeout\b|TimeoutError|TimeoutExpired|GetTimeoutError|deadline)"
"""What pytest-timeout, Ray, subprocess and our own waits say of something that took too long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Ray get a second try after a time-out, and after nothing else."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=[_TIMED_OUT]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of a test, which may take the longer part of it."""
    deadline = os.environ.get(DEADLINE)
    if deadline and time.time() > float(deadline):
        pytest.skip(_LEFT_OUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what needed a second try and what was left out, in the last lines."""
    say = terminalreporter.write_line
    for report in terminalreporter.stats.get("rerun", []):
        say(f"needed a second try after a time-out: {report.nodeid}")
    left = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if _LEFT_OUT in str(report.longrepr)
    ]
    for nodeid in left:
        say(f"left out for want of time: {nodeid}")
