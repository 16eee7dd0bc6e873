"""Two nodes that talk TLS, and one that does not; a script, for a process namespace of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
STARTED = time.monotonic()
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# In a process of its own: Ray reads its settings once.
SUM = """
import ray
ray.init("127.0.0.1:6398", logging_level="ERROR", log_to_driver=False)
wait = [n for n in ray.nodes() if n["Alive"]]
assert len(wait) == 2, wait
total = ray.remote(lambda rows: float(rows.sum())).options(num_cpus=1, resources={"far": 1})
import numpy
print("sum", ray.get(total.remote(numpy.ones((1000, 1000))), timeout=60))
"""


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


def settings(folder: Path) -> dict[str, str]:
    """What make_certs.sh says to export."""
    script = [str(ROOT / "cluster" / "make_certs.sh"), str(folder)]
    said = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    return dict(re.findall(r"(RAY_\w+)=(\S+)", said))


def main(folder: Path) -> None:
    env = {**os.environ, **settings(folder)}
    start = [*RAY, "start", "--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    head = [*start, "--head", "--port=6398", "--num-cpus=1"]
    subprocess.run(head, env=env, check=True, timeout=90, **quiet)
    far = [*start, "--address=127.0.0.1:6398", "--num-cpus=1", '--resources={"far": 1}']
    subprocess.run(far, env=env, check=True, timeout=90, **quiet)
    say("two nodes with TLS are up")
    command = [sys.executable, "-c", SUM]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert "sum 1000000.0" in done.stdout, done.stdout + done.stderr
    say("an array went to the other node and its sum came back")
    port = [
        *("openssl", "s_client", "-connect", "127.0.0.1:6398"),
        *("-CAfile", f"{folder}/ca.crt"),
    ]
    shaken = subprocess.run(port, input="", capture_output=True, text=True, timeout=30)
    assert "Verify return code: 0 (ok)" in shaken.stdout, shaken.stdout[-2000:]
    say("the head's port shows the certificate of our authority")
    plain = {name: value for name, value in env.items() if "TLS" not in name}
    plain |= {
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    }
    assert not comes_in(command, plain)
    say("a driver without TLS was refused, or got no answer in 45 s")


def comes_in(command: list[str], env: dict[str, str]) -> bool:
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=45)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
