"""Test hosts: machines made of Linux namespaces on one computer, each with an SSH server.

A host has its own network address, processes, `/tmp`, home and shared memory, so that `ray up`,
`ray stop` and a killed machine touch nothing else on the computer. Needs root, and Debian's
iproute2, openssh-server, openssh-client and rsync.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BRIDGE = "tatsbr"
NET = "10.77.0"
TOOLS = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
"""Program -> the Debian package that has it."""

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Prefix of a command that must not outlive this process, however that ends."""

# Runs as process 1 of a host. What must stay visible is bound aside before /root and /tmp are
# covered, and bound back afterwards.
INIT = """
set -eu
mount --make-rprivate /
hostname tats-host{number}
for path in {kept}; do mkdir -p {stage}$path; mount --bind $path {stage}$path; done
mount --rbind {stage} /mnt
for path in /root /run; do mount -t tmpfs tmpfs $path; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm
for path in {kept}; do mkdir -p $path; mount --bind /mnt$path $path; done
mkdir -p /run/sshd /root/.ssh
chmod 700 /root /root/.ssh
cp {state}/key.pub /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
cp {state}/hosts /run/hosts; mount --bind /run/hosts /etc/hosts
: > /run/resolv.conf; mount --bind /run/resolv.conf /etc/resolv.conf
cp {state}/profile /root/.bashrc; cp {state}/profile /root/.bash_profile
ip link set lo up
exec {sshd} -D -e -f /dev/null -h {state}/host_key -o ListenAddress={address} \
  -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no -o UsePAM=no -o PidFile=none \
  -o Subsystem="sftp internal-sftp"
"""


def program(name: str) -> str | None:
    """Where a program is; those of the administrator may be off the PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing() -> str:
    """One line about what keeps test hosts from working here; empty when nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the cluster test makes network namespaces and needs root on Linux: run it with sudo"
    packages = sorted({package for name, package in TOOLS.items() if program(name) is None})
    if packages:
        return f"the cluster test needs: apt-get install {' '.join(packages)}"
    probe = subprocess.run(["unshare", "--pid", "--fork", "--net", "true"], capture_output=True)
    return "" if probe.returncode == 0 else "this container forbids namespaces; use a real machine"


class Hosts:
    """`count` test hosts with the addresses 10.77.0.11, 10.77.0.12, ...

    Args:
        state: an empty folder for keys and logs.
        kept: folders that every host sees under the same path, like a shared file system.
        profile: lines of shell that every login runs.
    """

    def __init__(self, state: Path, count: int, *, kept: list[Path], profile: str) -> None:
        self.state = state
        self.count = count
        python = [Path(sys.prefix), Path(sys.base_prefix)]
        self.kept = sorted({path.resolve() for path in [*kept, *python, state]})
        self._servers: dict[int, subprocess.Popen[bytes]] = {}
        (state / "profile").write_text(profile)
        names = [f"{self.address(n)} tats-host{n}" for n in range(1, count + 1)]
        (state / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        for name in ("key", "host_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(state / name)]
            subprocess.run(command, check=True)

    @staticmethod
    def address(number: int) -> str:
        return f"{NET}.{10 + number}"

    def __enter__(self) -> Hosts:
        self._remove_network()
        _ip(f"link add {BRIDGE} type bridge")
        _ip(f"addr add {NET}.1/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
        for number in range(1, self.count + 1):
            self.start(number)
        for number in range(1, self.count + 1):
            self._wait(number)
        return self

    def __exit__(self, *error: object) -> None:
        for number in list(self._servers):
            self.kill(number)
        self._remove_network()

    def start(self, number: int) -> None:
        space, cable = f"tats{number}", f"vtats{number}"
        _ip(f"netns add {space}")
        _ip(f"link add {cable} type veth peer name eth0 netns {space}")
        _ip(f"link set {cable} master {BRIDGE} up")
        _ip(f"-n {space} addr add {self.address(number)}/24 dev eth0")
        _ip(f"-n {space} link set eth0 up")
        _ip(f"-n {space} route add default via {NET}.1")
        stage = self.state / f"stage{number}"
        stage.mkdir(exist_ok=True)
        init = INIT.format(
            number=number,
            address=self.address(number),
            state=self.state,
            stage=stage,
            kept=" ".join(str(path) for path in self.kept),
            sshd=program("sshd"),
        )
        spaces = "--pid --fork --kill-child --mount-proc --mount --uts --ipc"
        with (self.state / f"sshd{number}.log").open("wb") as log:
            self._servers[number] = subprocess.Popen(
                [*DIES_WITH_US, *f"ip netns exec {space} unshare {spaces} bash -c".split(), init],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, number: int) -> None:
        """As if its power had failed: the kernel ends every process of the host at once."""
        server = self._servers.pop(number)
        server.send_signal(signal.SIGKILL)
        server.wait(timeout=30)

    def ssh(self, number: int, command: str, timeout_s: float = 60) -> str:
        """Output of a command in a login shell of a host."""
        done = subprocess.run(
            [*self._ssh(number), f"bash --login -c {_quoted(command)}"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode:
            raise RuntimeError(f"host {number}: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def processes(self, number: int, word: str) -> list[str]:
        """Command lines on a host that contain a word."""
        lines = self.ssh(number, "ps -eo args --no-headers").splitlines()
        return [line for line in lines if word in line]

    def _ssh(self, number: int) -> list[str]:
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        key = ["-i", str(self.state / "key")]
        return [
            "ssh",
            *key,
            *options.split(),
            "-o",
            "ConnectTimeout=2",
            f"root@{self.address(number)}",
        ]

    def _wait(self, number: int) -> None:
        give_up = time.monotonic() + 30
        while subprocess.run([*self._ssh(number), "true"], capture_output=True).returncode:
            if time.monotonic() > give_up:
                log = (self.state / f"sshd{number}.log").read_text()
                raise TimeoutError(f"host {number} did not start in 30 s: {log}")
            time.sleep(0.1)

    def _remove_network(self) -> None:
        for number in range(1, 10):
            _ip(f"link del vtats{number}", check=False)
            _ip(f"netns del tats{number}", check=False)
        _ip(f"link del {BRIDGE}", check=False)


def _ip(words: str, *, check: bool = True) -> None:
    subprocess.run(["ip", *words.split()], check=check, capture_output=True)


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"
