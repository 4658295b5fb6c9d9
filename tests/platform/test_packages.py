"""Debian packages are installed without their services: the policy that forbids them is there for that time only."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import packages
from scripts.packages import Tool, services_off
from scripts.problem import Problem

REFUSED = 101  # invoke-rc.d(8): the action is forbidden by the policy


def asked(policy: Path, *arguments: str) -> int:
    """Ask the policy as invoke-rc.d does."""
    return subprocess.run([policy, *arguments], check=False).returncode


@pytest.fixture
def policy(tmp_path):
    """Give a place for a policy."""
    return tmp_path / "policy-rc.d"


def test_the_named_services_are_forbidden_and_no_other(policy):
    with services_off(["prometheus", "postgresql"], policy):
        assert asked(policy, "prometheus", "start", "2") == REFUSED
        assert asked(policy, "--quiet", "prometheus.service", "start") == REFUSED
        assert asked(policy, "postgresql", "restart") == REFUSED
        assert asked(policy, "postgresql@15-main.service", "start") == REFUSED
        assert asked(policy, "ssh", "start") == 0
    assert list(policy.parent.iterdir()) == []


def test_the_machines_own_policy_goes_on_to_hold_and_comes_back(policy):
    policy.write_text('#!/bin/sh\n[ "$1" != ssh ] || exit 104\n')
    policy.chmod(0o755)
    before = policy.read_bytes(), policy.stat().st_mode

    def install() -> None:
        with services_off(["prometheus"], policy):
            assert asked(policy, "prometheus", "start") == REFUSED
            assert asked(policy, "ssh", "start") == 104
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install()
    assert (policy.read_bytes(), policy.stat().st_mode) == before
    assert list(policy.parent.iterdir()) == [policy]


@pytest.mark.parametrize("own", [None, "#!/bin/sh\nexit 104\n"])
def test_what_a_killed_installation_left_is_put_right(policy, own):
    if own is not None:
        policy.write_text(own)
        policy.chmod(0o755)
    killed = services_off(["prometheus"], policy)
    killed.__enter__()
    with services_off(["redis-server"], policy):
        assert asked(policy, "prometheus", "start") == (0 if own is None else 104)
    assert (policy.read_text() if policy.exists() else None) == own


def test_missing_names_each_package_once():
    absent = [Tool("one", ("no-such-program",)), Tool("one", ("nor-this",)), Tool("shell", ("sh",))]
    assert packages.missing(absent) == ["one"]


UNIT = re.compile(r"(?:/usr)?/lib/systemd/system/([^@.]+)@?\.service|/etc/init\.d/(.+)")


@pytest.mark.parametrize("package", sorted({tool.package for tool in packages.FOR_TESTS}))
def test_the_services_that_a_package_brings_are_those_that_are_kept_off(package):
    if shutil.which("dpkg") is None:
        pytest.skip("not a Debian machine")
    listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"{package} came to this machine by another way")
    units = {found[1] or found[2] for path in listed.stdout.splitlines() if (found := UNIT.fullmatch(path))}
    assert units <= set(packages.SERVICES.get(package, (package,)))


def test_the_exporters_that_the_dashboards_look_at_are_installed_for_the_tests():
    exporters = {tool.package for tool in packages.FOR_TESTS if tool.package.endswith("-exporter")}
    assert exporters == {f"prometheus-{name}-exporter" for name in ("nginx", "postgres", "redis", "blackbox")}


def test_where_nothing_can_be_installed_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Problem) as raised:
        packages.install(["prometheus"], why="Prometheus")
    assert str(raised.value) == (
        "Prometheus: missing. As root on Debian or Ubuntu: apt-get install --no-install-recommends prometheus"
    )
