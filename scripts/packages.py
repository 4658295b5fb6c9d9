"""Debian packages: installed where that can be done, with their own services kept off.

Run as a program, it installs what the tests need; with `containers`, what those need that run the compose file.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.interrupts import uninterrupted
from scripts.problem import Problem, report

# What decides whether a package may start its service: invoke-rc.d(8), deb-systemd-invoke(1p).
POLICY = Path("/usr/sbin/policy-rc.d")
MARK = "# Placed by scripts/packages.py for the time of one installation."


@dataclass(frozen=True)
class Tool:
    """A program that is used, under any of its names or places, and the Debian package that has it."""

    package: str
    programs: tuple[str, ...]

    def path(self) -> str | None:
        """Find the program."""
        for program in self.programs:
            absolute = program.startswith("/")
            found = max(Path("/").glob(program[1:]), default=None) if absolute else shutil.which(program)
            if found:
                return str(found)
        return None


PROMETHEUS = Tool("prometheus", ("prometheus",))
ALERTMANAGER = Tool("prometheus-alertmanager", ("prometheus-alertmanager", "alertmanager"))
NGINX = Tool("nginx", ("nginx", "/usr/sbin/nginx"))
NGINX_EXPORTER = Tool("prometheus-nginx-exporter", ("prometheus-nginx-exporter", "nginx-prometheus-exporter"))
POSTGRES_EXPORTER = Tool("prometheus-postgres-exporter", ("prometheus-postgres-exporter", "postgres_exporter"))
REDIS_EXPORTER = Tool("prometheus-redis-exporter", ("prometheus-redis-exporter", "redis_exporter"))
BLACKBOX_EXPORTER = Tool("prometheus-blackbox-exporter", ("prometheus-blackbox-exporter", "blackbox_exporter"))
FOR_TESTS = (
    PROMETHEUS,
    ALERTMANAGER,
    Tool("prometheus", ("promtool",)),
    Tool("prometheus-alertmanager", ("amtool",)),
    Tool("redis-server", ("redis-server",)),
    Tool("postgresql", ("postgres", "/usr/lib/postgresql/*/bin/postgres")),
    NGINX,
    NGINX_EXPORTER,
    POSTGRES_EXPORTER,
    REDIS_EXPORTER,
    BLACKBOX_EXPORTER,
)
FOR_CONTAINERS = (
    Tool("docker.io", ("dockerd", "/usr/sbin/dockerd")),
    Tool("docker.io", ("docker",)),
    Tool("iptables", ("iptables", "/usr/sbin/iptables")),
    Tool("debootstrap", ("debootstrap", "/usr/sbin/debootstrap")),
)
SERVICES = {"docker.io": ("docker", "containerd")}  # where they have other names than their package


def missing(tools: Sequence[Tool]) -> list[str]:
    """Return the packages of the tools that are not there."""
    return list(dict.fromkeys(tool.package for tool in tools if tool.path() is None))


def installable() -> bool:
    """Say whether packages can be installed: Debian or a descendant, as root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(names: Sequence[str], why: str) -> None:
    """Install Debian packages, and leave their services neither running nor enabled.

    Raises:
        Problem: it cannot be done here, or failed.
    """
    command = f"apt-get install --no-install-recommends {' '.join(names)}"
    if not installable():
        raise Problem(f"{why}: missing. As root on Debian or Ubuntu: {command}")
    print(f"Installing the Debian packages {' '.join(names)} ({why})", flush=True)
    _apt("update")  # a repository that is not ours may fail: what counts is the installation
    arguments = ["install", "-y", "--no-install-recommends", *names]
    if _apt("--download-only", *arguments):
        raise Problem(f"{why}: {command} failed, as said above")
    services = [service for name in names for service in SERVICES.get(name, (name,))]
    with uninterrupted(), services_off(services):
        failed = _apt(*arguments)
        _disable(services)
    if failed:
        raise Problem(f"{why}: {command} failed, as said above")


@contextmanager
def services_off(names: Sequence[str], policy: Path = POLICY) -> Iterator[None]:
    """Forbid the services of these packages to start; what the machine says of others goes on to hold."""
    saved = policy.with_name(policy.name + ".saved-by-sightline")
    _restore(policy, saved)  # an installation that was killed left it so
    if policy.exists():
        policy.rename(saved)
    patterns = "|".join(names)
    policy.write_text(
        f"#!/bin/sh\n{MARK}\n"
        f'for word in "$@"; do case "${{word%%[.@]*}}" in {patterns}) exit 101 ;; esac; done\n'
        f'[ ! -x "{saved}" ] || exec "{saved}" "$@"\n'
    )
    policy.chmod(0o755)
    try:
        yield
    finally:
        _restore(policy, saved)


def _restore(policy: Path, saved: Path) -> None:
    if policy.exists() and MARK in policy.read_text(errors="replace"):
        policy.unlink()
    if saved.exists():
        saved.rename(policy)


def _apt(*arguments: str) -> int:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments]
    # In a session of its own, so that Ctrl-C cannot leave a package half configured.
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, start_new_session=True) as apt:
        try:
            return apt.wait()
        except BaseException:
            apt.terminate()
            raise


def _disable(names: Sequence[str]) -> None:
    for name in names:
        if shutil.which("systemctl"):
            command = ["systemctl", "disable", "--quiet", name]
        elif shutil.which("update-rc.d"):
            command = ["update-rc.d", name, "disable"]
        else:
            return
        subprocess.run(command, check=False, capture_output=True)


def main() -> None:
    """Install what the tests need."""
    lacking = missing(FOR_CONTAINERS if "containers" in sys.argv[1:] else FOR_TESTS)
    if lacking:
        install(lacking, why="the tests run against the real servers")


if __name__ == "__main__":
    sys.exit(report(main))
