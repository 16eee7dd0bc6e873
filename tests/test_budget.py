"""The second try of tests that ran out of time, and the deadline after which none is started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = """
import pytest
from tests.budget import Budget

def pytest_configure(config):
    config.addinivalue_line("markers", "ray: starts real Ray processes")
    config.pluginmanager.register(Budget())
"""
# Each test counts its tries in a file; a first try fails as its body says.
HEAD = """
import subprocess, time
from pathlib import Path
import pytest

def is_first(name):
    with Path(name).open("a") as file:
        file.write("x")
    return Path(name).read_text() == "x"
"""
FAILURES = {
    "a_limit": ("time.sleep(9)", True),
    "an_error": ("raise TimeoutError('no answer')", True),
    "a_command": ("subprocess.run(['sleep', '9'], timeout=0.1)", True),
    "a_wait": ("deadline = 0.0; assert time.monotonic() < deadline, 'never came'", True),
    "a_wrong_value": ("assert 1 == 2", False),
    "a_quote": ("assert 'finished' in 'TimeoutError was handled'", False),
    "another_error": ("raise ValueError('Timeout')", False),
}


def run(folder: Path, text: str, *flags: str, deadline: str = "") -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(HEAD + text)
    plugins = ["-p", "pytest_timeout", "-p", "xdist"]
    command = [sys.executable, "-m", "pytest", "-rfE", *plugins, *flags]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "TATS_TEST_DEADLINE": deadline,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout + done.stderr


def a_test(name: str, body: str, mark: str = "ray") -> str:
    return f"""
@pytest.mark.{mark}
@pytest.mark.timeout(1)
def test_{name}():
    if is_first("{name}"):
        {body}
"""


@pytest.mark.parametrize("flags", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_only_what_ran_out_of_time_is_tried_again_and_it_is_named(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    cases = [a_test(name, body) for name, (body, _) in FAILURES.items()]
    told = run(tmp_path, "".join(cases), *flags)
    assert " 3 failed, 4 passed" in told, told
    summary = told.partition("tried a second time")[2]
    for name, (_, is_time) in FAILURES.items():
        assert (f"test_it.py::test_{name}  (call: " in summary) is is_time, told
        assert (tmp_path / name).read_text() == ("xx" if is_time else "x")


def test_a_second_time_out_fails_within_a_limit_of_its_own(tmp_path: Path) -> None:
    told = run(tmp_path, a_test("slow", "pass") + "    time.sleep(9)\n")
    assert " 1 failed in " in told, told
    assert (tmp_path / "slow").read_text() == "xx"
    assert "test_it.py::test_slow  (call: Failed: Timeout (>1" in told


def test_a_test_without_ray_is_not_tried_again(tmp_path: Path) -> None:
    told = run(tmp_path, a_test("plain", "raise TimeoutError('no answer')", mark="filterwarnings"))
    assert " 1 failed in " in told, told
    assert (tmp_path / "plain").read_text() == "x"


def test_fixtures_of_a_session_that_hung_are_made_anew(tmp_path: Path) -> None:
    shared = """
@pytest.fixture(scope="session")
def shared():
    with Path("made").open("a") as file:
        file.write("x")
    yield
    raise ValueError("it does not end")
"""
    tests = a_test("hangs", "raise TimeoutError").replace("hangs()", "hangs(shared)")
    told = run(tmp_path, shared + tests + "\ndef test_next(shared): pass\n")
    assert " 2 passed, 1 error in " in told, told  # the error of the second one's end
    assert "TimeoutError; and at its end ValueError('it does not end')" in told
    assert (tmp_path / "made").read_text() == "xx"


def test_after_the_deadline_nothing_is_started_and_what_is_left_out_is_named(
    tmp_path: Path,
) -> None:
    moved = "import os; os.environ['TATS_TEST_DEADLINE'] = '1'"
    text = a_test("in_time", moved) + a_test("late", "assert False")
    told = run(tmp_path, text, deadline="0")
    assert " 2 skipped in " in told, told
    assert "left out at the deadline: 2 tests" in told
    assert not list(tmp_path.glob("late"))
    # The deadline passes during a test: that one goes on to its end.
    told = run(tmp_path, text, deadline=str(time.time() + 3600))
    assert " 1 passed, 1 skipped in " in told, told
    assert told.partition("left out at the deadline: 1 tests")[2].splitlines()[1] == (
        "test_it.py::test_late"
    )
