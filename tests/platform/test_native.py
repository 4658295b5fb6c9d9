"""Native mode as a user meets it: `make up`, what it shows, what it refuses, and how it ends."""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from dashboards.build import queries
from scripts.ports import free
from tests.platform.make import Make

SECONDS = 60  # a deadline that a user would notice
# Prometheus may evaluate its rules before it knows Alertmanager, and sends an alert again only after a minute.
RESENT_SECONDS = 150


def eventually(check: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until a check holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def ask(make: Make, expression: str) -> list[dict]:
    """Ask Prometheus."""
    answer = requests.get(make.url("PROMETHEUS_PORT", "/api/v1/query"), {"query": expression}, timeout=10).json()
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


class TestRunning:
    def test_up_ends_with_addresses_that_all_answer(self, running):
        make, printed = running
        shown = [
            make.url("APP_PORT"),
            make.url("AGENT_PORT", "/metrics"),
            make.url("AGENT_PORT", "/readyz"),
            make.url("AGENT_PORT", "/state"),
            make.url("PROMETHEUS_PORT"),
            make.url("ALERTMANAGER_PORT"),
            make.url("TUNER_PORT", "/decisions"),
        ]
        for url in shown:
            assert f"{url}\n" in printed
            assert requests.get(url, timeout=10).status_code == 200, url
        assert "Try next:" in printed

    def test_everything_outlives_make_and_is_on_loopback_only(self, running):
        make, _ = running
        assert {"app", "prometheus", "alertmanager", "tuner"} <= make.pids().keys()
        for pid in make.pids().values():
            assert os.getsid(pid) == pid
        for port in make.ports.values():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((_other_address(), port), timeout=2)

    def test_prometheus_scrapes_all_and_sees_the_sample_traffic(self, running):
        make, _ = running
        for job in ("sightline", "prometheus", "alertmanager", "tuner"):
            eventually(lambda job=job: [s for s in ask(make, f'up{{job="{job}"}}') if s["value"][1] == "1"], job)
        eventually(lambda: ask(make, "sum(http_server_request_duration_seconds_count) > 9"), "sample traffic")

    def test_the_watchdog_reaches_alertmanager(self, running):
        make, _ = running

        def alerts() -> list[str]:
            found = requests.get(make.url("ALERTMANAGER_PORT", "/api/v2/alerts"), timeout=10).json()
            return [each["labels"]["alertname"] for each in found]

        eventually(lambda: "Watchdog" in alerts(), "no Watchdog in Alertmanager", RESENT_SECONDS)

    def test_the_tuner_sees_the_server_and_only_recommends(self, running):
        make, _ = running
        server = f"127.0.0.1:{make.ports['AGENT_PORT']}"
        looked = f'tuner_last_evaluation_timestamp_seconds{{server="{server}"}}'
        seen = f'{looked} and on () tuner_mode{{mode="recommend"}} == 1'
        eventually(lambda: ask(make, seen), "the tuner has not looked", RESENT_SECONDS)
        assert requests.get(make.url("TUNER_PORT", "/readyz"), timeout=10).status_code == 200

    def test_alertmanager_has_the_tuners_token(self, running):
        make, _ = running
        config = requests.get(make.url("ALERTMANAGER_PORT", "/api/v2/status"), timeout=10).json()["config"]["original"]
        assert make.url("TUNER_PORT", "/alerts") in config
        token = (make.run_dir / "secrets/webhook_token").read_text()
        url, headers = make.url("TUNER_PORT", "/alerts"), {"Authorization": f"Bearer {token}"}
        assert requests.post(url, b"{", headers=headers, timeout=10).status_code == 400
        assert requests.post(url, b"{", timeout=10).status_code == 401

    def test_what_the_dashboards_ask_of_servers_and_workers_finds_data(self, running):
        """Queue time is left out, since no proxy stands before this app; objectives need two minutes."""
        make, _ = running
        eventually(lambda: ask(make, "rate(gunicorn_worker_requests_total[20s]) > 0"), "no rate yet")
        eventually(lambda: ask(make, "instance_worker:gunicorn_worker_requests:rate5m"), "nothing recorded yet")
        asked = [
            each
            for each in queries()
            if each.dashboard in ("sightline-service", "sightline-workers")
            and (each.language, each.needs) == ("promql", "")
            and not re.search("queue|slo_", each.expression)
        ]
        assert len(asked) > 20
        times = {"__rate_interval": "20s", "__range": "60s", "__interval": "5s"}
        for each in asked:
            expression = re.sub(r"\$\{?(\w+)\}?", lambda found: times.get(found[1], ".+"), each.expression)
            assert ask(make, expression), (each.panel, expression)

    def test_up_again_changes_nothing(self, running):
        make, _ = running
        before = make.pids()
        again = make("up")
        assert again.returncode == 0, again.stderr
        assert "Everything runs already." in again.stdout
        assert {name: before[name] for name in ("app", "prometheus", "alertmanager")}.items() <= make.pids().items()

    def test_up_with_another_port_is_refused_in_one_line(self, running):
        make, _ = running
        refused = make("up", APP_PORT=make.ports["APP_PORT"] + 1)
        assert refused.returncode != 0
        first = refused.stderr.splitlines()[0]
        assert first == f"It runs already with APP_PORT={make.ports['APP_PORT']}: give `make down` first"

    def test_status_names_every_process(self, running):
        make, _ = running
        printed = make("status").stdout
        for name in ("app", "prometheus", "alertmanager", "tuner"):
            assert f"running, pid {make.pids()[name]}" in printed

    def test_logs_show_the_apps_json_lines(self, running):
        make, _ = running
        lines = make("logs").stdout.splitlines()
        assert any(line.startswith("{") and json.loads(line) for line in lines)

    def test_a_second_up_at_the_same_time_is_refused(self, running):
        make, _ = running
        with (make.run_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            refused = make("up")
        assert "Another `make up` or `make down` is at work" in refused.stderr


def _other_address() -> str:
    """Return an address of this host that is not loopback; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no other address")
        return str(probe.getsockname()[0])


def test_down_leaves_nothing_behind(make):
    assert make("up").returncode == 0
    directory = Path(psutil.Process(make.pids()["app"]).environ()["OBSERVABILITY_DIR"])
    assert list(directory.iterdir())
    down = make("down")
    assert down.returncode == 0, down.stderr
    assert make.left() == []
    assert all(free(port) for port in make.ports.values())
    assert not directory.exists()
    assert "Nothing is running" in make("status").stdout
    assert "Nothing is running" in make("down").stdout


def test_what_was_killed_is_seen_and_started_again(make):
    assert make("up").returncode == 0
    before = make.pids()
    os.kill(before["alertmanager"], signal.SIGKILL)
    eventually(lambda: "alertmanager" not in make.pids(), "still there")
    assert "ended unasked" in make("status").stdout
    assert make("up").returncode == 0
    after = make.pids()
    assert after["alertmanager"] != before["alertmanager"]
    assert after["app"] == before["app"]


def test_a_binary_upgrade_is_followed(make):
    assert make("up").returncode == 0
    old = make.pids()["app"]
    os.kill(old, signal.SIGUSR2)
    eventually(lambda: _upgraded(old), "no new master")
    os.kill(old, signal.SIGTERM)
    eventually(lambda: make.pids().get("app", old) != old, "the new master is not known")
    assert make("down").returncode == 0
    assert make.left() == []


def _upgraded(old: int) -> bool:
    """Say whether the new master has workers."""
    masters = [each for each in psutil.Process(old).children() if "GUNICORN_PID" in each.environ()]
    return any(each.children() for each in masters)


@pytest.mark.parametrize("variable", ["APP_PORT", "AGENT_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "TUNER_PORT"])
def test_a_port_that_is_taken_is_one_line_before_anything_starts(make, variable):
    with socket.create_server(("127.0.0.1", make.ports[variable])):
        refused = make("up")
    assert refused.returncode != 0
    port = make.ports[variable]
    assert refused.stderr.splitlines()[0].startswith(f"Port {port} is taken: ")
    assert f"make up {variable}=" in refused.stderr.splitlines()[0]
    assert "Starting" not in refused.stdout
    assert make.left() == []


def test_what_dies_at_start_is_said_with_its_log_and_the_rest_is_stopped(make):
    make.environ["GUNICORN_TIMEOUT"] = "soon"
    failed = make("up")
    assert failed.returncode != 0
    lines = failed.stderr.splitlines()
    assert lines[0].startswith("app died at start (exit status ")
    assert lines[0].endswith("the end of " + str(make.processes.log("app")) + ":")
    assert any("GUNICORN_TIMEOUT is 'soon'" in line for line in lines[1:])
    assert make.left() == []
    assert "Nothing is running" in make("status").stdout


def test_without_prometheus_the_rest_runs_and_one_line_says_what_is_missing(make, tmp_path):
    """A machine that has none, and on which nothing can be installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "dirname", "id", "python3", "env", "tail"):
        (programs / name).symlink_to(shutil.which(name))
    make.environ["PATH"] = str(programs)
    up = make("up")
    assert up.returncode == 0, up.stderr
    (said,) = [line for line in up.stdout.splitlines() if "missing" in line]
    assert "apt-get install --no-install-recommends prometheus prometheus-alertmanager" in said
    assert f"run without: metrics, health and state on {make.ports['AGENT_PORT']}" in said
    assert make.pids().keys() == {"app", "tuner"}
    assert make.url("PROMETHEUS_PORT") not in up.stdout
    assert requests.get(make.url("AGENT_PORT", "/metrics"), timeout=10).status_code == 200
    assert make("down").returncode == 0
    assert make.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_nothing_running(make, number):
    up = make.start("up")
    eventually((make.processes.records / "app.json").exists, "the app was never started")
    os.killpg(up.pid, number)
    printed, _ = up.communicate(timeout=SECONDS)
    assert up.returncode != 0, printed
    assert make.left() == []
    assert "Nothing is running" in make("status").stdout


def test_without_a_daemon_containers_are_refused_in_one_line(make):
    make.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    refused = make("up", MODE="containers")
    assert refused.returncode != 0
    assert refused.stderr.startswith("MODE=containers cannot be had: ")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("APP_PORT", "eight", "APP_PORT is 'eight', but takes a whole number from 1 to 65535"),
        ("APP_PORT", "0", "APP_PORT is '0', but takes a whole number from 1 to 65535"),
        ("MODE", "cloud", "MODE is 'cloud', but takes one of auto, containers, native"),
    ],
)
def test_a_senseless_setting_is_one_line(make, variable, value, said):
    refused = make("up", **{variable: value})
    assert refused.returncode != 0
    assert refused.stderr.splitlines()[0] == said


def test_the_same_port_twice_is_one_line(make):
    refused = make("up", APP_PORT=make.ports["AGENT_PORT"])
    assert "APP_PORT" in refused.stderr
    assert "give one of them another port" in refused.stderr.splitlines()[0]
