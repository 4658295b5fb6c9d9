"""The stack as people run it, asked from outside: through nginx, and what Prometheus knows.

The tests stand in the order in which the stack is used, and each leaves it as the next one expects it.
"""

import json
import re
import time
from pathlib import Path

import pytest
import requests

from tests.compose.load import CLIENTS, Load
from tests.compose.stack import Stack
from tests.server import wait_until

ABSENT = {"loki", "tempo", "alloy", "grafana"}  # compose.test.yml: their metrics, that is
WORKERS = 2  # compose.test.yml
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
COUNT = "http_server_request_duration_seconds_count"
SEEN = 40  # seconds until Prometheus knows: DNS, a scrape, and what the machine needs


def replicas_seen(stack: Stack) -> int:
    return sum(value == 1 for value in stack.query('up{job="sightline"}').values())


def app_ids(stack: Stack) -> list[str]:
    return [each["Id"] for each in stack.containers("app")]


def test_every_container_is_what_the_file_says_it_is(stack):
    containers = stack.containers()
    assert len(containers) == 13
    for each in containers:
        name, host = each["Config"]["Labels"]["com.docker.compose.service"], each["HostConfig"]
        assert each["State"]["Status"] == "running", name
        assert each["State"].get("Health", {"Status": "healthy"})["Status"] == "healthy", name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Memory"] > 0, name
        assert host["NanoCpus"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert not each["Config"]["User"].startswith(("0", "root")), name
        assert not any("password" in variable.lower() and "/run/secrets/" not in variable
                       for variable in each["Config"]["Env"]), name  # fmt: skip


def test_what_runs_in_a_container_is_not_root_and_can_write_nowhere_but_where_it_may(stack):
    for service in ("nginx", "app", "tuner", "postgres", "redis", "prometheus", "blackbox", "docker-logs"):
        assert stack.exec(service, "id", "-u").stdout.strip() != "0"
        assert stack.exec(service, "touch", "/usr/here").returncode != 0, service
    assert stack.exec("prometheus", "touch", "/etc/prometheus/here").returncode != 0
    for service in ("app", "postgres", "postgres-exporter"):
        assert stack.exec(service, "cat", "/run/secrets/database_password").stdout
    assert stack.exec("redis", "cat", "/run/secrets/database_password").returncode != 0


def test_only_loopback_is_published(stack):
    bound = {
        (service, binding["HostIp"])
        for each in stack.containers()
        for service in [each["Config"]["Labels"]["com.docker.compose.service"]]
        for bindings in (each["NetworkSettings"]["Ports"] or {}).values()
        for binding in bindings or ()
    }
    assert bound == {(service, "127.0.0.1") for service in ("nginx", "prometheus", "alertmanager", "tuner")}


def test_the_backend_has_no_way_out(stack):
    networks = {
        name.removeprefix(f"{stack.project}_"): json.loads(stack.docker("network", "inspect", name))[0]["Internal"]
        for name in (f"{stack.project}_{each}" for each in ("edge", "backend", "logs"))
    }
    assert networks == {"edge": False, "backend": True, "logs": True}
    script = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    assert stack.exec("app", "python", "-c", script).returncode != 0
    unknown = "import socket; socket.getaddrinfo('docker-logs', 2375)"
    assert "socket.gaierror" in stack.exec("app", "python", "-c", unknown).stderr, "nobody but Alloy sees the gate"


def test_a_request_through_nginx_is_in_every_signal(stack):
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-ID": "of-this-test"}
    for _ in range(25):
        answer = requests.get(stack.url("APP_PORT", "/todos?limit=5"), headers=headers, timeout=10)
        assert answer.status_code == 200
        assert answer.headers["X-Request-ID"] == "of-this-test"
    selector = f'{COUNT}{{http_route="/todos",http_response_status_code="200"}}'
    wait_until(lambda: stack.number(selector) >= 25, SEEN, "the requests in Prometheus")
    queued = f'sum(http_server_request_queue_seconds_count) / sum({COUNT}{{url_scheme="http"}})'
    assert stack.number(queued) > 0.9, "nginx says when a request came"

    (seen,) = {line["trace_id"] for line in stack.logs("nginx") if line["request_id"] == "of-this-test"}
    assert seen == TRACE
    lines = [line for line in stack.logs("app") if line.get("trace_id") == TRACE]
    assert len(lines) == 25
    assert {line["http.route"] for line in lines} == {"/todos"}
    wait_until(lambda: has_trace(stack), SEEN, "the spans where Alloy would be")


def test_the_tuner_is_told_of_an_alert_and_looks_at_the_server(stack):
    labels = {"alertname": "RequestsQueueing", "severity": "warning", "tuner": "true", "job": "sightline"}
    url = stack.url("ALERTMANAGER_PORT", "/api/v2/alerts")
    assert requests.post(url, json=[{"labels": labels | {"instance": "told:9101"}}], timeout=10).status_code == 200
    wait_until(lambda: stack.number('tuner_webhooks_total{result="accepted"}') >= 1, SEEN, "the alert at the tuner")
    assert stack.number('tuner_webhooks_total{result="unauthorized"}') == 0
    wait_until(lambda: stack.number("count(tuner_signals_age_seconds)") == 1, 2 * SEEN, "signals of the one server")
    assert stack.number('tuner_mode{mode="recommend"}') == 1
    assert requests.get(stack.url("TUNER_PORT", "/readyz"), timeout=10).status_code == 200


def has_trace(stack: Stack) -> bool:
    script = f"import urllib.request as u; u.urlopen('http://alloy:4318/seen/{TRACE}', timeout=3)"
    return stack.exec("app", "python", "-c", script).returncode == 0


def test_a_request_id_that_is_none_is_replaced(stack):
    answer = requests.get(stack.url("APP_PORT", "/healthz"), headers={"X-Request-ID": 'x"} {'}, timeout=10)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert re.fullmatch(r"[0-9a-f]{32}", requests.get(stack.url("APP_PORT"), timeout=10).headers["X-Request-ID"])


def test_a_body_that_is_too_large_is_refused_at_the_door(stack):
    too_much = requests.post(stack.url("APP_PORT", "/todos"), json={"title": "x" * 200_000}, timeout=10)
    assert too_much.status_code == 413
    assert too_much.headers["Server"] == "nginx"


def test_the_version_is_in_the_image_and_on_every_line(stack):
    (image,) = json.loads(stack.docker("image", "inspect", "sightline-app"))
    assert image["Config"]["Labels"]["org.opencontainers.image.version"] == "9.8.7"
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["StopSignal"] == "SIGTERM"
    assert {line.get("service.version") for line in stack.logs("app")} == {"9.8.7"}
    found = stack.exec("app", "sh", "-c", "command -v gcc cc make; ls /venv/bin/pip /tests /.secrets")
    assert found.stdout == ""


def test_prometheus_scrapes_all_that_is_there(stack):
    there = {"sightline", "tuner", "nginx", "postgres", "redis", "blackbox", "prometheus", "alertmanager"}

    def up() -> bool:
        return {name for name, value in stack.query("sum by (job) (up)").items() if value} == there

    wait_until(up, SEEN, "every job up")
    assert set(stack.query("sum by (job) (up)")) - there == ABSENT
    assert stack.query("nginx_up") != {}
    assert stack.number("pg_up") == 1
    assert stack.number("redis_up") == 1
    assert stack.query("sum by (instance) (probe_success)") == {"http://nginx:8080/healthz": 1}
    assert stack.number('sum(db_client_connection_count{db_client_connection_state="idle"})') > 0, "PostgreSQL is used"
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():  # version 2 of control groups
        assert stack.number("sum(cgroup_memory_limit_bytes)") == 768 * 2**20, "the container's, as its agent sees it"
        assert stack.number("sum(cgroup_cpu_quota_cores)") == 1


def test_the_agent_and_alertmanager_are_where_make_up_says(stack):
    assert requests.get(stack.url("AGENT_PORT", "/readyz"), timeout=10).status_code == 200
    assert len(requests.get(stack.url("AGENT_PORT", "/state"), timeout=10).json()["workers"]) == WORKERS
    assert requests.get(stack.url("ALERTMANAGER_PORT", "/-/ready"), timeout=10).status_code == 200


def test_the_docker_socket_answers_for_lists_and_logs_alone(stack):
    (app,) = app_ids(stack)
    gate = "http://127.0.0.1:2375"

    def ask(path: str, *options: str) -> str:
        done = stack.exec("docker-logs", "wget", "-q", "-O", "-", "-S", *options, gate + path)
        return re.search(r"HTTP/1\.1 (\d{3})", done.stderr)[1] + done.stdout

    assert ask("/containers/json").startswith("200[{")
    assert "http.server.request" in ask(f"/containers/{app}/logs?stdout=1")
    assert ask(f"/containers/{app}/kill", "--post-data=").startswith("403")
    assert ask("/containers/json", "--post-data=").startswith("403")
    assert ask(f"/containers/{app}/archive?path=/run/secrets").startswith("403")
    assert ask("/images/json").startswith("403")
    assert stack.containers("app")[0]["State"]["Running"]


def test_three_replicas_each_with_its_workers_are_seen(stack):
    with Load(stack.ports["APP_PORT"], clients=4) as load:
        stack.up("--no-recreate", "--scale", "app=3")
    assert load.failures() == []
    wait_until(lambda: replicas_seen(stack) == 3, SEEN, "three replicas")
    workers = "count by (instance) (gunicorn_worker_info)"
    wait_until(lambda: list(stack.query(workers).values()) == [WORKERS] * 3, SEEN, "every worker")
    asked = "sum by (instance) (increase(gunicorn_worker_requests_total[30s])) > 0"
    with Load(stack.ports["APP_PORT"], clients=4) as load:
        wait_until(lambda: len(stack.query(asked)) == 3, SEEN, "requests at every replica")
    assert load.failures() == []


def test_a_replica_that_is_killed_takes_nothing_along_but_what_it_was_at(stack):
    victim = app_ids(stack)[0]
    with Load(stack.ports["APP_PORT"]) as load:
        time.sleep(2)
        before = time.monotonic()
        stack.docker("kill", "--signal", "KILL", victim)
        after = time.monotonic()
        time.sleep(8)
    assert len(load.asked) > 200
    for each in load.failures():
        assert each.method == "POST", each  # what may be repeated was asked of another
        assert each.started <= after, each
        assert each.ended >= before, each
    wait_until(lambda: replicas_seen(stack) == 2, SEEN, "two replicas")
    stack.docker("start", victim)
    stack.wait_healthy(victim)
    wait_until(lambda: replicas_seen(stack) == 3, SEEN, "three replicas again")


def test_a_rolling_restart_fails_no_request(stack):
    reloads = "sum(gunicorn_reloads_total)"
    before = stack.number(reloads)
    with Load(stack.ports["APP_PORT"]) as load:
        for number, each in enumerate(app_ids(stack), 1):
            stack.docker("kill", "--signal", "HUP", each)
            wait_until(lambda done=before + number: stack.number(reloads) >= done, SEEN, "the reload")
            time.sleep(2)
    assert load.failures() == []
    assert {each.method for each in load.asked} == {"GET", "POST"}


def test_replicas_replaced_one_by_one_fail_nothing_that_may_be_repeated(stack):
    """A POST that waits in a server's socket at the moment it closes is lost: nobody knows that it was not read."""
    with Load(stack.ports["APP_PORT"]) as load:
        for each in app_ids(stack):
            stack.docker("restart", "--time", "40", each)
            stack.wait_healthy(each)
    assert len(load.asked) > 200
    assert [each for each in load.failures() if each.method != "POST"] == []
    assert len(load.failures()) <= 3 * CLIENTS


def test_the_load_profile_sends_a_mix_and_ends(stack):
    command = ("python", "-m", "scripts.traffic", "http://nginx:8080", "3", "2")
    said = stack.compose("--profile", "load", "run", "--rm", "-T", "load", *command)
    answered = int(re.search(r"(\d+) requests answered", said)[1])
    lines = [line for line in stack.logs("nginx") if line["user_agent.original"].startswith("Python-urllib")]
    assert len(lines) >= answered > 10
    assert {line["http.request.method"] for line in lines} == {"GET", "POST", "PUT"}


def test_faults_are_served_only_where_they_are_switched_on(stack):
    assert requests.get(stack.url("APP_PORT", "/faults"), timeout=10).status_code == 404


@pytest.fixture
def with_tls(stack: Stack, host: str, certificate: Path) -> Stack:
    """Give the stack after nginx was switched to TLS."""
    other = Stack(host, "compose.local.yml", "compose.tls.yml", "compose.faults.yml", **{
        **{name: str(port) for name, port in stack.ports.items()},
        "TLS_CERTIFICATE": str(certificate), "TLS_KEY": str(certificate.with_suffix(".key")),
    })  # fmt: skip
    other.ports = stack.ports
    other.up("--scale", "app=1")
    return other


def test_tls_is_a_switch(with_tls, certificate):
    plain = requests.get(with_tls.url("APP_PORT", "/todos?limit=1"), allow_redirects=False, timeout=10)
    assert plain.status_code == 308
    port = with_tls.ports["TLS_PORT"]
    assert plain.headers["Location"] == f"https://127.0.0.1:{port}/todos?limit=1"
    answer = requests.get(f"https://localhost:{port}/todos?limit=1", verify=certificate, timeout=10)
    assert answer.status_code == 200
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert requests.get(f"https://localhost:{port}/faults", verify=certificate, timeout=10).status_code == 200
    wait_until(lambda: with_tls.number(f'sum({COUNT}{{url_scheme="https"}})') > 0, SEEN, "the scheme is believed")
    ends = "probe_ssl_earliest_cert_expiry - time()"
    wait_until(lambda: 29 * 86400 < with_tls.number(ends) < 30 * 86400, SEEN, "the certificate's end")
