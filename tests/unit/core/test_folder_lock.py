"""One run in a folder: who is refused, who takes over, and what is left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tats_ray.core.errors import UsageError
from tats_ray.core.folder_lock import LOCK_FILE, only_run_in


def holder(tmp_path: Path, **fields: Any) -> Path:
    """A lock file that a run left: of a dead process of this host, if nothing else is said."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    text = {"host": socket.gethostname(), "pid": dead.pid, "started": "1", "time": "noon"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(text | fields))
    return tmp_path / LOCK_FILE


def test_second_run_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with only_run_in(tmp_path):
        with (
            pytest.raises(
                UsageError, match=rf"in use by process {os.getpid()} on host \S+ since .*--name"
            ),
            only_run_in(tmp_path),
        ):
            pass
        with pytest.raises(UsageError, match="in use"), only_run_in(tmp_path):
            pass  # the refusal has not broken the lock
    assert list(tmp_path.iterdir()) == []
    with only_run_in(tmp_path):
        pass


def test_lock_of_a_killed_process_is_taken_over_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from tats_ray.core.folder_lock import only_run_in\n"
        "with only_run_in(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=100)
    assert killed.returncode == -9
    pid = json.loads((tmp_path / LOCK_FILE).read_text())["pid"]
    with only_run_in(tmp_path):
        assert f"took over the run folder from process {pid} on host" in capsys.readouterr().out
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_lock_of_another_host_is_believed_and_the_way_out_is_said(tmp_path: Path) -> None:
    file = holder(tmp_path, host="elsewhere", pid=7)
    with (
        pytest.raises(UsageError, match=rf"process 7 on host elsewhere .*remove {file}"),
        only_run_in(tmp_path),
    ):
        pass
    file.unlink()
    with only_run_in(tmp_path):
        pass


def test_living_holder_is_believed_where_the_file_system_knows_no_locks(tmp_path: Path) -> None:
    started = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    holder(tmp_path, pid=os.getpid(), started=started)
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"), only_run_in(tmp_path):
        pass


def test_number_of_a_dead_process_that_another_one_got_since_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder(tmp_path, pid=os.getpid(), started="1")
    with only_run_in(tmp_path):
        assert "took over" in capsys.readouterr().out


def test_lock_that_was_cut_off_is_taken(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text('{"host": "he')
    with only_run_in(tmp_path):
        pass


def test_run_that_fails_leaves_no_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError), only_run_in(tmp_path):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
