"""A real job server on the loopback: its token, and tats submit, status, logs and stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runtime.gate import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "d" * 64
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# A head that ends with its process: nothing else on the machine is stopped.
HEAD = """
import ray, sys, time
found = ray.init(address="local", num_cpus=1, object_store_memory=100 * 2**20,
                 logging_level="ERROR", dashboard_port=int(sys.argv[1]))
print("ready", found.dashboard_url, found.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
STRANGER = """
import ray, sys
ray.init(sys.argv[1], logging_level="ERROR")
print("came in")
"""
LONG = """
import signal, sys, time
def save(*_):
    print("saved a checkpoint", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(600)
"""


@dataclass
class Head:
    url: str
    gcs: str
    env: dict[str, str]

    def tats(self, *words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tats_ray", *words],
            cwd=cwd,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=250,
        )

    def start(self, name: str, source: str) -> None:
        """Submit Python without waiting for it."""
        words = ["python", "-c", source]
        code = (
            "from tats_ray.runtime.cluster.job_server import Jobs; "
            f"Jobs().submit({words!r}, name={name!r})"
        )
        subprocess.run([sys.executable, "-c", code], env=self.env, check=True, timeout=200)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    (home / ".ray" / "auth_token").chmod(0o600)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
    env |= {"HOME": str(home), "RAY_AUTH_MODE": "token", "PYTHONPATH": str(ROOT)}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"  # a job runs `python`
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD, str(free_port())],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("ready")), "")
        _, url, gcs = line.split()
        yield Head(f"http://{url}", gcs, {**env, "RAY_API_SERVER_ADDRESS": f"http://{url}"})
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def answer(url: str, token: str = "", body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)


def test_job_port_refuses_a_request_without_the_token(head: Head, tmp_path: Path) -> None:
    assert head.url.startswith("http://127.0.0.1:")
    jobs, mark = f"{head.url}/api/jobs/", tmp_path / "ran"
    code = f'{{"entrypoint": "touch {mark}"}}'.encode()
    assert answer(jobs, body=code) == 401
    assert answer(jobs, token="e" * 64, body=code) == 403
    assert answer(jobs, token=TOKEN) == 200
    assert head.tats("status", "--address", head.url).stdout.split() == [
        "job",
        "status",
        "command",
        "none",
        "-",
        "-",
    ]
    assert not mark.exists()


@pytest.mark.long
def test_driver_without_the_token_cannot_join_and_so_reaches_no_actor(head: Head) -> None:
    """The border in front of everything that Ray unpickles, rollouts among it."""
    stranger = {**head.env, "RAY_AUTH_TOKEN": "e" * 64}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, head.gcs],
        env=stranger,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "came in" not in done.stdout
    assert "uthenticat" in done.stdout + done.stderr


@pytest.mark.long
def test_submit_uploads_a_small_wheel_compares_versions_and_shows_the_output(head: Head) -> None:
    done = head.tats("submit", "--name", "listed", "--", "fields")
    assert done.returncode == 0, done.stdout + done.stderr
    (megabytes,) = re.findall(r"uploading ([\d.]+) MB: tats_ray", done.stdout)
    assert float(megabytes) < 1
    assert re.search(r"^ray +2\.60\.\d+ +2\.60\.\d+$", done.stdout, re.MULTILINE)
    assert "loop.epochs = 200" in done.stdout  # it ran there, and its output came back
    assert done.stdout.rstrip().endswith("job listed: SUCCEEDED")
    assert TOKEN not in done.stdout + done.stderr
    assert re.search(
        r"^listed +SUCCEEDED", head.tats("status", "--address", head.url).stdout, re.MULTILINE
    )


@pytest.mark.long
def test_failed_job_is_a_failed_command(head: Head) -> None:
    head.start("wrong", "raise SystemExit('no such config')")
    done = head.tats("logs", "wrong")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no such config" in done.stdout
    assert "job wrong failed" in done.stderr


@pytest.mark.long
def test_stopped_job_gets_the_time_to_save(head: Head) -> None:
    from tats_ray.runtime.cluster.job_server import STOP_WAIT_S

    assert STOP_WAIT_S >= 300
    head.start("long", LONG)
    give_up = time.monotonic() + 60
    code = "from tats_ray.runtime.cluster.job_server import Jobs; print(Jobs().logs('long'))"
    while (
        "training"
        not in subprocess.run(
            [sys.executable, "-c", code], env=head.env, capture_output=True, text=True, timeout=60
        ).stdout
    ):
        assert time.monotonic() < give_up
    done = head.tats("stop", "long")
    assert "saved a checkpoint" in done.stdout, done.stdout + done.stderr
    assert "job long: STOPPED" in done.stdout


@pytest.mark.long
def test_what_is_wrong_with_a_request_is_said_in_one_line(head: Head, tmp_path: Path) -> None:
    done = head.tats("logs", "nobody")
    assert done.returncode == 2
    assert "has no job nobody" in done.stderr
    (tmp_path / ".ray").mkdir()
    done = head.tats("status", HOME=str(tmp_path))
    assert done.returncode == 2
    assert "make one: ray get-auth-token --generate" in done.stderr
    done = head.tats("status", RAY_AUTH_TOKEN="e" * 64)
    assert done.returncode == 1
    assert "refused the auth token" in done.stderr
    done = head.tats("status", "--address", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "open the tunnel with `ray dashboard" in done.stderr
