"""What the test run itself promises: a second try after a time-out only, and a deadline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = "from tests.budget import *\n"
INI = "[pytest]\nmarkers = ray: starts Ray\n"


def outcome(folder: Path, source: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a run over one test file of its own."""
    (folder / "pytest.ini").write_text(INI)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(source)
    env = {k: v for k, v in os.environ.items() if k != "TATS_TEST_DEADLINE"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**env, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


FAILS_ONCE = """
import pathlib, pytest
tries = pathlib.Path(__file__).with_name("tries")

{mark}
def test_it():
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if tries.read_text() == "x":
        raise {error}
"""


@pytest.mark.parametrize(
    ("mark", "error", "is_tried_again"),
    [
        ("@pytest.mark.ray", "TimeoutError('waited 60 s for a learner')", True),
        ("@pytest.mark.ray", "AssertionError('0 == 1')", False),
        ("", "TimeoutError('waited 60 s for a learner')", False),
    ],
)
def test_only_a_test_of_ray_that_timed_out_is_tried_again_and_named(
    tmp_path: Path, mark: str, error: str, is_tried_again: bool
) -> None:
    code, text = outcome(tmp_path, FAILS_ONCE.format(mark=mark, error=error))
    assert (code == 0) == is_tried_again
    assert bool(re.search(r"needed a second try .*test_it", text)) == is_tried_again


def test_hang_that_pytest_timeout_ends_is_tried_again(tmp_path: Path) -> None:
    source = FAILS_ONCE.format(mark="@pytest.mark.ray\n@pytest.mark.timeout(1)", error="SystemExit")
    source = source.replace("raise SystemExit", "import time; time.sleep(30)")
    code, text = outcome(tmp_path, source)
    assert code == 0, text
    assert "needed a second try" in text


def test_nothing_begins_after_the_deadline_and_what_was_left_out_is_named(tmp_path: Path) -> None:
    source = (
        "import os\n"
        "def test_first():\n    os.environ['TATS_TEST_DEADLINE'] = '1'  # long gone\n"
        "def test_second():\n    1 / 0\n"
    )
    code, text = outcome(tmp_path, source, TATS_TEST_DEADLINE=str(time.time() + 3600))
    assert code == 0, text
    assert re.search(r"left out for want of time: .*test_second", text)
    assert "1 passed, 1 skipped" in text
