"""A Docker daemon of the test's own, which leaves the host as it found it."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.server import wait_until

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
LINKS = Path("/sys/class/net")
CAP_SYS_ADMIN, CAP_NET_ADMIN = 21, 12  # capabilities(7)


def run(*command: object, check: bool = True, **options: object) -> str:
    """Run a command, which has to succeed, and return what it prints."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0 or not check, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def program(name: str) -> str | None:
    """Find a program, in the directories of root too."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def lacking() -> str:
    """Say why no daemon can run here; "" if one can."""
    if os.geteuid() != 0:
        return "a Docker daemon needs root"
    if program("dockerd") is None and not Path("/etc/debian_version").exists():
        return "dockerd is not installed, and only Debian's could be"
    held = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)[8:], 16)
    if not held >> CAP_SYS_ADMIN & held >> CAP_NET_ADMIN & 1:
        return "this container may neither mount nor make networks (CAP_SYS_ADMIN, CAP_NET_ADMIN)"
    return ""


def answers(host: str | None = None) -> bool:
    """Say whether a daemon answers: the one of a host, or the one that `docker` finds by itself."""
    if program("docker") is None:
        return False
    environ = os.environ | ({"DOCKER_HOST": host} if host else {})
    return subprocess.run(["docker", "info"], env=environ, capture_output=True, check=False).returncode == 0


@dataclass
class Host:
    """What a daemon changes on its host."""

    forwarding: str = field(default_factory=FORWARDING.read_text)
    links: set[str] = field(default_factory=lambda: {path.name for path in LINKS.iterdir()})
    rules: dict[str, list[str]] = field(default_factory=lambda: _rules())

    def restore(self) -> None:
        """Take back what has been added since, and nothing that was there."""
        for link in {path.name for path in LINKS.iterdir()} - self.links:
            if link == "docker0" or link.startswith(("br-", "veth")):
                run("ip", "link", "delete", link, check=False)  # its other end may have taken it along
        for table, now in _rules().items():
            _take_back(table, self.rules.get(table, []), now)
        FORWARDING.write_text(self.forwarding)

    def differences(self) -> list[str]:
        """Name what is not as it was."""
        now = Host()
        rules = {line for lines in now.rules.values() for line in lines if not line.endswith(" ACCEPT") or "-A" in line}
        before = {line for lines in self.rules.values() for line in lines}
        return [
            *(["ip_forward"] if now.forwarding != self.forwarding else []),
            *sorted(now.links ^ self.links),
            *sorted(rules - before),
            *sorted(line for line in before if line not in {each for lines in now.rules.values() for each in lines}),
        ]


def _rules() -> dict[str, list[str]]:
    """Return the lines of iptables-save by table, without counters: chains (`:NAME POLICY`) and rules (`-A ...`)."""
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in run(program("iptables-save")).splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:], [])
        elif line.startswith((":", "-A")):
            lines.append(line.partition(" [")[0])
    return tables


def _take_back(table: str, before: list[str], now: list[str]) -> None:
    iptables = (program("iptables"), "-w", "-t", table)
    added = [line for line in now if line not in before]
    for rule in (line for line in added if line.startswith("-A")):
        run(*iptables, "-D", *shlex.split(rule)[1:])
    policies = dict(line[1:].split(" ") for line in before if line.startswith(":"))
    for chain, policy in (line[1:].split(" ") for line in added if line.startswith(":")):
        if policy == "-":  # a chain of somebody's own
            run(*iptables, "-X", chain)
        elif policy != policies.get(chain, "ACCEPT"):
            run(*iptables, "-P", chain, policies.get(chain, "ACCEPT"))


class Daemon:
    """dockerd in a temporary directory: its data, its socket, its log."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sightline-docker-"))
        self.socket = self.directory / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.before = Host()

    def __enter__(self) -> "Daemon":
        (self.directory / "daemon.json").write_text("{}")
        command = [
            *(program("dockerd"), "--config-file", self.directory / "daemon.json", "-H", self.host),
            *("--data-root", self.directory / "data", "--exec-root", self.directory / "exec"),
            *("--pidfile", self.directory / "pid", "--mtu", "1400"),
        ]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(self._ready, 60, "dockerd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _ready(self) -> bool:
        assert self.process.poll() is None, (self.directory / "log").read_text()[-3000:]
        return answers(self.host)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        for mount in reversed(self.mounts()):
            run("umount", "-l", mount, check=False)
        self.before.restore()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)

    def mounts(self) -> list[str]:
        """Return what is mounted below the directory."""
        points = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [point for point in points if point.startswith(f"{self.directory}/")]

    def left(self) -> list[str]:
        """Name what has outlived the daemon: processes, mounts, files, and what it changed of the host."""
        processes = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.directory).encode() in path.read_bytes():
                    processes.append(path.read_bytes().replace(b"\0", b" ").decode())
        files = [str(self.directory)] if self.directory.exists() else []
        return [*processes, *self.mounts(), *files, *self.before.differences()]
