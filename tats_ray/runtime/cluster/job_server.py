"""A cluster's job server: the one door through which a laptop reaches a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from tats_ray.core.errors import TatsError, UsageError
from tats_ray.runtime.cluster.auth import require_auth_token

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
STOP_WAIT_S = 300
"""Seconds that a job may take to save its checkpoint when it is stopped; Ray's default is 3."""
_AGENT_WAIT_S = 120
"""Seconds that a head may take, from its server's first answer on, until it can run jobs."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

# Distribution -> version on the head; no import, so that it takes a moment and not seconds.
_VERSIONS = """
import json, platform
from importlib import metadata
found = {"python": platform.python_version()}
for name in NAMES:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = ""
print("versions " + json.dumps(found))
"""


@contextmanager
def _address_in_environment(address: str) -> Iterator[None]:
    """Ray's client believes RAY_API_SERVER_ADDRESS and RAY_ADDRESS rather than its argument."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class JobServerError(TatsError):
    """The job server did not do as asked."""


class Jobs:
    """Jobs of one cluster. Every request carries the auth token.

    Args:
        address: `http://HOST:PORT`, as a rule the near end of a tunnel; default:
            RAY_API_SERVER_ADDRESS, or port 8265 of this machine.

    Raises:
        UsageError: where no auth token is found.
        JobServerError: where no server answers, or the auth token is refused.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
        if not self.address.startswith(("http://", "https://")):
            raise UsageError(f"--address {self.address} is not a URL; use http://HOST:8265")
        auth_token = require_auth_token()
        headers = {"Authorization": f"Bearer {auth_token.value}"} if auth_token else {}
        with self._errors(), _address_in_environment(self.address):
            self._client = JobSubmissionClient(self.address, headers=headers)

    def submit(
        self, words: list[str], *, name: str, working_dir: Path | None = None, **env: str
    ) -> str:
        """Start `words` on the head node; the folder becomes its working folder on every node."""
        runtime_env: dict[str, Any] = {
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **env}
        }
        if working_dir is not None:
            runtime_env["working_dir"] = str(working_dir)
        give_up = time.monotonic() + _AGENT_WAIT_S
        while True:
            with self._errors():
                try:
                    return self._client.submit_job(
                        entrypoint=shlex.join(words), submission_id=name, runtime_env=runtime_env
                    )
                except RuntimeError as error:
                    # The server of a head that has just started answers before it can run jobs.
                    if "No available agent" not in str(error) or time.monotonic() > give_up:
                        raise
            time.sleep(1.0)

    def versions(self, names: tuple[str, ...], timeout_s: float = 120) -> dict[str, str]:
        """Versions on the head, of Python and of `names`; empty for what is not installed."""
        source = f"NAMES = {list(names)!r}{_VERSIONS}"
        job = self.submit(["python", "-c", source], name=f"tats-versions-{time.time_ns()}")
        status = self.wait(job, timeout_s)
        lines = self.logs(job).splitlines()
        told = [line for line in lines if line.startswith("versions ")]
        if status != "SUCCEEDED" or not told:
            raise JobServerError(f"{self.address} did not report its versions: {' '.join(lines)}")
        found: dict[str, str] = json.loads(told[-1].removeprefix("versions "))
        with self._errors():
            self._client.delete_job(job)
        return found

    def status(self, job: str) -> str:
        with self._errors(job):
            return str(self._client.get_job_status(job).value)

    def wait(self, job: str, timeout_s: float) -> str:
        """Status of a job once it ended.

        Raises:
            JobServerError: where it goes on for longer.
        """
        give_up = time.monotonic() + timeout_s
        while (status := self.status(job)) not in ENDED:
            if time.monotonic() > give_up:
                raise JobServerError(f"job {job} is still {status} after {timeout_s:g} s")
            time.sleep(0.5)
        return status

    def logs(self, job: str) -> str:
        with self._errors(job):
            return str(self._client.get_job_logs(job))

    def follow(self, job: str) -> str:
        """Print a job's output as it comes, for as long as it runs; its status at the end."""
        self.status(job)  # names a job that does not exist

        async def tail() -> None:
            async for lines in self._client.tail_job_logs(job):
                print(lines, end="", flush=True)

        with self._errors(job):
            asyncio.run(tail())
        return self.wait(job, 60)

    def stop(self, job: str) -> str:
        """Ask a job to save and stop, and wait until it has."""
        with self._errors(job):
            self._client.stop_job(job)
        return self.wait(job, STOP_WAIT_S + 60)

    def all(self) -> list[tuple[str, str, str]]:
        """(job, status, command) of every submitted job, oldest first; drivers have no name."""
        with self._errors():
            found = sorted(self._client.list_jobs(), key=lambda job: job.start_time or 0)
        return [(j.submission_id, j.status.value, j.entrypoint) for j in found if j.submission_id]

    @contextmanager
    def _errors(self, job: str = "") -> Iterator[None]:
        """Ray's errors in one line, with the way out."""
        try:
            yield
        except OSError as error:  # those of requests are OSErrors too
            raise JobServerError(
                f"no job server at {self.address}; open the tunnel with `ray dashboard "
                "cluster.yaml` and leave it open, or give --address (a run on this machine has "
                "none: its terminal and runs/NAME/metrics.jsonl show its progress)"
            ) from error
        except AuthenticationError as error:
            raise JobServerError(
                f"{self.address} refused the auth token: use the cluster's own, "
                "in ~/.ray/auth_token or RAY_AUTH_TOKEN_PATH"
            ) from error
        except RuntimeError as error:
            if "404" in str(error) and job:
                raise UsageError(f"{self.address} has no job {job}; see tats status") from error
            raise JobServerError(f"{self.address}: {str(error).strip().splitlines()[0]}") from error
