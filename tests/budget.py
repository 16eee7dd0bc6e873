"""What a slow machine is given: a second try of what timed out, and an end to what is started.

Tests that start Ray are tried again, once, where the first failure was that time ran out; for no
other failure. After `TATS_TEST_DEADLINE` (seconds since 1970) no test is started. The closing
summary names the tests of both kinds.

pytest-rerunfailures does not do: its second try has no time limit, since pytest-timeout sets one
clock for both, and it tells a time-out by the text of a message, which may only quote one.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator
from concurrent import futures

import pytest
from _pytest.runner import runtestprotocol

DEADLINE = "TATS_TEST_DEADLINE"
LEFT_OUT = "left out: the time for tests was used up"
_RAN_OUT = (TimeoutError, futures.TimeoutError, subprocess.TimeoutExpired)


def has_run_out_of_time(found: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether an error says that something took too long, and not that it was wrong."""
    error = found.value
    if isinstance(error, AssertionError):  # `assert time.monotonic() < deadline` of a wait
        return "time.monotonic() <" in str(found.traceback[-1].statement)
    if isinstance(error, pytest.fail.Exception):
        return str(error).endswith("from pytest-timeout.")
    return isinstance(error, _RAN_OUT)


class Budget:
    """The hooks; `_causes` holds the first failure of each test whose time ran out."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._failed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if time.time() >= float(os.environ.get(DEADLINE) or "inf"):
            pytest.skip(LEFT_OUT)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and item.nodeid not in self._failed:
            self._failed.add(item.nodeid)
            if call.excinfo is not None and has_run_out_of_time(call.excinfo):
                self._causes[item.nodeid] = f"{call.when}: {call.excinfo.exconly().splitlines()[0]}"
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if item.get_closest_marker("ray") is None:
            return None
        cause = self._causes.get(item.nodeid, "")
        if cause:
            # A Ray that hung is not asked again: every fixture is made anew.
            try:
                item.session._setupstate.teardown_exact(None)
            except (Exception, pytest.fail.Exception) as error:
                cause = f"{cause}; and at its end {error!r}"
        else:
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if not cause and item.nodeid in self._causes:
            # Through the hook, so that the second try has a time limit of its own.
            item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            return True
        for report in reports:
            report.second_try = cause
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        reports = [r for group in terminalreporter.stats.values() for r in group]
        again = {r.nodeid: r.second_try for r in reports if getattr(r, "second_try", "")}
        late = [r.nodeid for r in reports if LEFT_OUT in str(getattr(r, "longrepr", ""))]
        if again:
            terminalreporter.section("tried a second time, because the first ran out of time")
            for name, cause in sorted(again.items()):
                terminalreporter.line(f"{name}  ({cause})")
        if late:
            terminalreporter.section(f"left out at the deadline: {len(late)} tests")
            for name in late:
                terminalreporter.line(name)
