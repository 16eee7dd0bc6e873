"""`ray up` to `ray down` on three test hosts, with the cluster file that is shipped.

The tests of this module go through one cluster's life, in the order in which they stand.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import Hosts, missing

from tats_ray.checkpoints import format as checkpoints
from tats_ray.data.synthetic import synthesize
from tats_ray.view.tracking import read_metrics

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "cluster" / "small.yaml"
PORT = 8299
pytestmark = [pytest.mark.ray, pytest.mark.timeout(420)]
STARTED = time.monotonic()


def say(text: str) -> None:
    """On the terminal; what a worker of pytest-xdist writes to stdout is lost."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


@dataclass
class Site:
    """Three hosts, what they share, and the laptop's side of the cluster."""

    hosts: Hosts
    folder: Path
    shared: Path
    file: Path
    env: dict[str, str] = field(default_factory=dict, repr=False)
    alive: list[int] = field(default_factory=lambda: [1, 2, 3])

    def laptop(self, *words: str, timeout_s: float = 180, cwd: Path = ROOT) -> str:
        """Output of a command on the laptop; it must succeed."""
        done = subprocess.run(
            words,
            cwd=cwd,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-6000:]}"
        return done.stdout

    def ray(self, *words: str, **options: Any) -> str:
        return self.laptop(sys.executable, "-m", "ray.scripts.scripts", *words, **options)

    def tats(self, *words: str, **options: Any) -> str:
        return self.laptop(sys.executable, "-m", "tats_ray", *words, **options)

    def until(self, what: str, ready: Callable[[], Any], timeout_s: float = 120) -> Any:
        give_up = time.monotonic() + timeout_s
        while not (found := ready()):
            assert time.monotonic() < give_up, f"waited {timeout_s:g} s for {what}"
            time.sleep(1)
        say(what)
        return found


def cluster_file(site: Path, shared: Path, key: Path, token: Path, dist: Path) -> dict[str, Any]:
    """The file for machines of one's own, with this test's addresses.

    The hosts share the laptop's Python, so the lock needs no installing; each counts as one core
    with a small object store; and a silent one counts as dead after two missed checks, not five.
    """
    text = (ROOT / "cluster" / "onprem.yaml").read_text()
    text = re.sub(r"(?<=[ ])/shared\b", str(shared), text)
    text = text.replace("ray start ", "ray start --num-cpus=1 --object-store-memory=150000000 ")
    head = "RAY_JOB_STOP_WAIT_TIME_S=300"
    assert text.count(head) == 1
    text = text.replace(head, f"{head} RAY_health_check_failure_threshold=2")
    config: dict[str, Any] = yaml.safe_load(text)
    config["provider"] |= {
        "head_ip": Hosts.address(1),
        "worker_ips": [Hosts.address(2), Hosts.address(3)],
    }
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config |= {"min_workers": 2, "max_workers": 2}
    mounts = {"auth_token": token, "requirements.lock": ROOT / "requirements.lock", "dist": dist}
    for remote, local in config["file_mounts"].items():
        config["file_mounts"][remote] = str(mounts[Path(local).name])
    install = [line for line in config["setup_commands"] if "-r ~/requirements.lock" in line]
    assert len(install) == 1
    config["setup_commands"].remove(install[0])
    return config


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if why := missing():
        pytest.fail(why)
    folder = tmp_path_factory.mktemp("site")
    state, shared = folder / "state", folder / "shared"
    state.mkdir()
    shared.mkdir()
    synthesize(shared / "videos", num_train=18, num_val=4, num_frames=12, size=48, workers=1)
    token = folder / "auth_token"
    token.write_text("a" * 64)
    token.chmod(0o600)
    # Installed into a folder of the host's own, not into the Python that it shares.
    profile = (
        f"export PATH=$HOME/site/bin:{sys.prefix}/bin:$PATH PYTHONPATH=$HOME/site "
        "PIP_TARGET=$HOME/site PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1 "
        "PIP_ROOT_USER_ACTION=ignore\n"
    )
    with Hosts(state, 3, kept=[shared], profile=profile) as hosts:
        made = Site(hosts, folder, shared, folder / "cluster.yaml")
        # Short, for the sockets in it; gone afterwards, with what `ray up` remembers.
        laptop = Path("/tmp") / f"tct{os.getpid()}"
        laptop.mkdir()
        made.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_UP_enable_autoscaler_v2": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(laptop),
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{PORT}",
            "TMPDIR": str(laptop),
        }
        made.env.pop("RAY_ADDRESS", None)
        made.tats("cluster", "wheel", str(folder / "dist"))
        config = cluster_file(folder, shared, state / "key", token, folder / "dist")
        made.file.write_text(yaml.safe_dump(config, sort_keys=False))
        tunnel = None
        try:
            lint = made.tats("cluster", "lint", str(made.file))
            assert "FAIL" not in lint
            say("lint passes; ray up")
            up = made.ray("up", "-y", "--no-config-cache", str(made.file), timeout_s=240)
            # The self-check at the end of the set-up ran, on the head, with this wheel.
            assert "auth token of node" in up
            say("ray up is done: " + line_with(up, "host name"))
            words = ["dashboard", str(made.file), "-p", str(PORT)]
            tunnel = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *words],
                env=made.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
            yield made
        finally:
            if tunnel is not None:
                tunnel.terminate()
                tunnel.wait(timeout=30)
            for log in made.hosts.state.glob("sshd*.log"):
                log.unlink()
            shutil.rmtree(laptop, ignore_errors=True)


def line_with(text: str, word: str) -> str:
    return next((" ".join(line.split()) for line in text.splitlines() if word in line), "")


def test_every_machine_joins(site: Site) -> None:
    def is_full() -> bool:
        return "/3.0 CPU" in site.hosts.ssh(1, "RAY_AUTH_MODE=token ray status")

    site.until("both workers joined", is_full, 150)


def test_job_server_is_on_the_loopback_and_wants_the_token(site: Site) -> None:
    url = f"http://127.0.0.1:{PORT}/api/jobs/"
    site.until("the tunnel stands", lambda: answer(url) != 0, 30)
    assert answer(url) == 401
    assert answer(url, "b" * 64) == 403
    assert answer(url, "a" * 64) == 200
    assert answer(f"http://{Hosts.address(1)}:8265/api/jobs/", "a" * 64) == 0
    say("no token 401, a wrong one 403, the right one 200; nothing listens outside the head")


def answer(url: str, token: str = "") -> int:
    """HTTP status; 0 where nobody listens."""
    request = urllib.request.Request(
        url, headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)
    except OSError:
        return 0


def test_doctor_looks_at_every_machine(site: Site) -> None:
    told = site.tats(
        *("cluster", "doctor", "--address", f"http://127.0.0.1:{PORT}"),
        *("--storage", str(site.shared), "--seconds", "2"),
    )
    rows = [line for line in told.splitlines() if line.startswith("tats-host")]
    assert len(rows) == 3, told
    assert all(re.search(r"\sok\s+\d+\s+ok$", row) for row in rows), told
    assert "all-reduce: 3 nodes, gloo on CPUs: " in told
    assert float(re.findall(r"uploading ([\d.]+) MB", told)[0]) < 1
    for row in [*rows, line_with(told, "all-reduce"), line_with(told, "uploading")]:
        say(row)


def run_words(site: Site, config: Path, name: str, *more: str) -> list[str]:
    return [
        *("pretrain", str(config), "--name", name),
        *("--data.train_list", str(site.shared / "videos" / "train.csv")),
        *("--checkpoint.folder", str(site.shared / "runs"), *more),
    ]


def steps(run: Path) -> int:
    return max((int(record["step"]) for record in records(run)), default=0)


def records(run: Path) -> list[dict[str, float]]:
    return read_metrics(run)


def is_over(site: Site, job: str) -> bool:
    token = Path(site.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    url = f"http://127.0.0.1:{PORT}/api/jobs/{job}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)["status"] in ("SUCCEEDED", "FAILED", "STOPPED")


def learners(site: Site) -> dict[int, int]:
    """Host -> MAE learners on it."""
    return {n: len(site.hosts.processes(n, "ray::RayTrainWorker")) for n in site.alive}


def test_run_over_two_machines_outlives_one_of_them(site: Site) -> None:
    run = site.shared / "runs" / "survivor"
    config = SMALL.relative_to(ROOT)  # so it is uploaded
    more = ["--cluster.num_workers", "2", "--cluster.timeout_s", "60"]
    words = run_words(site, config, "survivor", *more)
    told = site.tats("submit", "--no-wait", "--name", "survivor", "--", *words)
    say(line_with(told, "uploading"))
    site.until("the run saved a checkpoint", lambda: (run / "checkpoints" / "latest").exists())
    where = learners(site)
    assert sorted(where.values()) == [0, 1, 1], where
    victim = max(n for n, count in where.items() if count)
    before = steps(run)
    site.alive.remove(victim)
    site.hosts.kill(victim)
    say(f"killed host {victim} with a learner on it, after step {before}")
    told = site.tats("logs", "survivor", timeout_s=240)
    assert "job survivor: SUCCEEDED" in told, told[-4000:]
    found = checkpoints.load(run)
    assert found.position.epoch == 60
    assert found.position.step == 180
    say(line_with(told, "RESUMED") or "no line says RESUMED")
    say(f"job survivor: SUCCEEDED at step {found.position.step}")
    assert "RESUMED" in told, told[-4000:]
    assert {n for n, count in learners(site).items() if count} == set()


def test_plain_ray_job_submit_works_and_stopping_it_saves_a_checkpoint(site: Site) -> None:
    run = site.shared / "runs" / "stopped"
    config = site.shared / "small.yaml"  # .rayignore keeps the tests at home
    shutil.copy(SMALL, config)
    more = ["--loop.epochs", "100000", "--checkpoint.every_epochs", "100000"]
    words = run_words(site, config, "stopped", *more)
    job = ["--submission-id", "plain", "--no-wait", "--working-dir", "."]
    site.ray("job", "submit", *job, "--", "tats", *words)
    site.until("a plain `ray job submit` trains", lambda: steps(run) > 4 or is_over(site, "plain"))
    assert not is_over(site, "plain"), site.ray("job", "logs", "plain")
    assert not (run / "checkpoints" / "latest").exists()
    assert re.search(r"plain\s+RUNNING", site.tats("status"))
    told = site.tats("stop", "plain")
    say(line_with(told, "stopped after step") or told)
    assert "job plain: STOPPED" in told
    assert "--resume" in told
    assert checkpoints.load(run).position.step > 4


def test_nothing_is_left_after_ray_down(site: Site) -> None:
    site.ray("down", "-y", str(site.file))
    say("ray down is done")
    for number in site.alive:
        what = f"no Ray process is left on host {number}"
        site.until(what, lambda number=number: not ray_processes(site, number), 90)


def ray_processes(site: Site, number: int) -> list[str]:
    words = ("raylet", "gcs_server", "ray::")
    return [process for word in words for process in site.hosts.processes(number, word)]
