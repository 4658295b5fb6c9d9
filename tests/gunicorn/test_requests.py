"""One request is one measurement and one log line, under each worker class."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import Server, wait_until

DURATION = "http_server_request_duration_seconds_count"


@pytest.fixture(scope="module", params=["sync", "gthread", "gevent"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp(request.param), GUNICORN_WORKER_CLASS=request.param) as running:
        yield running


def counted(server: Server, **labels: str) -> float:
    return server.metrics().sum(DURATION, **labels)


def after(server: Server, act: Callable[[], object], **labels: str) -> None:
    """Check that an act adds exactly one request under these labels, and none elsewhere."""
    before, all_before = counted(server, **labels), counted(server)
    act()
    wait_until(lambda: counted(server) > all_before, what="the request to be counted")
    assert counted(server, **labels) == before + 1
    assert counted(server) == all_before + 1


def last_line(server: Server, path: str) -> dict[str, object]:
    found = wait_until(lambda: [line for line in server.requests_logged() if line["url.path"] == path], what=path)
    return found[-1]  # type: ignore[no-any-return]


def test_the_route_is_the_template_and_everything_agrees(server: Server) -> None:
    after(
        server,
        lambda: server.get("/items/42"),
        http_request_method="GET",
        http_route="/items/<int:number>",
        http_response_status_code="200",
        url_scheme="http",
        error_type="",
    )
    line = last_line(server, "/items/42")
    assert line["http.route"] == "/items/<int:number>"
    assert line["body"] == "GET /items/<int:number> 200"
    assert line["item"] == 42  # what the app annotated
    assert line["severity_text"] == "INFO"
    assert line["http.response.status_code"] == 200
    assert line["worker"] in (1, 2)
    assert line["in_flight"] == 1
    assert len(line["trace_id"]) == 32  # type: ignore[arg-type]
    assert ("cpu_seconds" in line) == (server.env["GUNICORN_WORKER_CLASS"] != "gevent")


def test_an_unmatched_path_never_becomes_a_label(server: Server) -> None:
    after(server, lambda: server.get("/no/such/path"), http_route="", http_response_status_code="404")


def test_an_unknown_method_is_other_and_the_log_has_the_original(server: Server) -> None:
    import requests

    after(server, lambda: requests.request("BREW", server.url + "/", timeout=5), http_request_method="_OTHER")
    assert last_line(server, "/")["http.request.method_original"] == "BREW"


def test_an_exception_is_a_500_with_its_type(server: Server) -> None:
    errors = server.metrics().sum("gunicorn_worker_errors_total")
    after(
        server,
        lambda: server.get("/fail"),
        http_route="/fail",
        http_response_status_code="500",
        error_type="ValueError",
    )
    wait_until(lambda: server.metrics().sum("gunicorn_worker_errors_total") == errors + 1)
    line = last_line(server, "/fail")
    assert line["severity_text"] == "ERROR"
    assert line["error.type"] == "ValueError"
    trace = [each for each in server.lines() if each.get("exception.type") == "ValueError"][-1]
    assert trace["trace_id"] == line["trace_id"]
    assert "second line" in trace["exception.message"]


def test_a_5xx_without_an_exception_is_named_by_its_status(server: Server) -> None:
    after(server, lambda: server.get("/status/503"), http_response_status_code="503", error_type="503")


def test_a_stream_is_measured_to_its_end(server: Server) -> None:
    after(server, lambda: server.get("/stream/5?pause=0.1"), http_route="/stream/<int:chunks>", error_type="")
    line = last_line(server, "/stream/5")
    assert line["http.response.body.size"] == 5000
    assert 0.5 <= line["duration_seconds"] < 5  # type: ignore[operator]


def test_a_stream_that_breaks_keeps_its_status_and_names_the_error(server: Server) -> None:
    import requests

    def broken() -> None:
        with pytest.raises(requests.RequestException):
            server.get("/stream/5?fail=2").raise_for_status()

    after(server, broken, http_response_status_code="200", error_type="RuntimeError")


def test_a_client_that_leaves_is_recorded_as_such(server: Server) -> None:
    def leave() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /stream/100?pause=0.05 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset at close

    after(server, leave, http_response_status_code="200", error_type="client_disconnected")
    assert last_line(server, "/stream/100")["error.type"] == "client_disconnected"


def test_a_file_goes_through_the_servers_sendfile(server: Server) -> None:
    answers = []
    after(server, lambda: answers.append(server.get("/file")), http_route="/file", error_type="")
    assert answers[0].text == Path(__file__).parent.parent.joinpath("probe_app.py").read_text()
    assert last_line(server, "/file")["http.response.body.size"] == len(answers[0].content)


def test_queue_time_comes_from_the_proxys_header_and_nonsense_is_ignored(server: Server) -> None:
    def queue() -> tuple[float, float]:
        found = server.metrics()
        name = "http_server_request_queue_seconds"
        return found.sum(f"{name}_count"), found.sum(f"{name}_sum")

    count, total = queue()
    server.get("/", headers={"X-Request-Start": f"t={time.time() - 0.5:.3f}"})
    server.get("/", headers={"X-Request-Start": "yesterday"})
    server.get("/", headers={"X-Request-Start": f"t={time.time() + 60:.3f}"})
    wait_until(lambda: queue()[0] > count)
    assert queue()[0] == count + 1
    assert 0.5 <= queue()[1] - total < 5


def test_body_sizes_are_observed(server: Server) -> None:
    import requests

    name = "http_server_request_body_size_bytes"
    before = server.metrics().sum(f"{name}_sum")
    requests.post(server.url + "/items/1", data=b"x" * 1234, timeout=5)
    wait_until(lambda: server.metrics().sum(f"{name}_sum") == before + 1234)


def test_the_apps_own_counter_is_merged_over_workers(server: Server) -> None:
    for _ in range(10):
        server.get("/count/apples")
    wait_until(lambda: server.metrics().sum("probe_things_total", kind="apples") == 10)


def test_per_worker_sums_equal_the_merged_count(server: Server) -> None:
    for _ in range(20):
        server.get("/")
    found = server.metrics()
    assert found.sum("gunicorn_worker_requests_total") == found.sum(DURATION)
    assert set(found.by("worker", "gunicorn_worker_requests_total")) == {"1", "2"}


def test_a_request_in_flight_is_active_busy_and_in_the_state(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /sleep/1.5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: server.metrics().sum("http_server_active_requests") == 1)
        busy = server.metrics().sum("gunicorn_worker_busy_seconds_total")
        (now,) = [flight for worker in server.state()["workers"] for flight in worker["now"]]
        assert (now["method"], now["path"]) == ("GET", "/sleep/1.5")
        assert len(now["trace_id"]) == 32
        time.sleep(0.3)
        assert server.metrics().sum("gunicorn_worker_busy_seconds_total") - busy >= 0.3
        assert server.metrics().sum("gunicorn_worker_oldest_request_age_seconds") >= 0.3
        while client.recv(1000):
            pass
    wait_until(lambda: server.metrics().sum("http_server_active_requests") == 0)
    wait_until(lambda: server.metrics().sum("gunicorn_worker_oldest_request_age_seconds") == 0)


def test_every_line_is_json_and_secrets_are_masked(server: Server) -> None:
    server.get("/log/warning")
    line = wait_until(lambda: [each for each in server.lines() if each.get("body") == "probe says"])[-1]
    assert line["password"] == "***"
    assert line["severity_text"] == "WARN"
    assert line["trace_id"] == last_line(server, "/log/warning")["trace_id"]
    assert {"Starting gunicorn", "Booting worker"} <= {
        str(each.get("body"))[:17].strip()[:17] for each in server.lines()
    } | {str(each.get("body"))[:14] for each in server.lines()}


def test_a_request_that_gunicorn_cannot_parse_is_counted(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"nonsense\r\n\r\n")
        client.recv(1000)
    wait_until(lambda: server.metrics().sum("gunicorn_invalid_requests_total") == 1)


def test_the_apps_port_serves_no_metrics(server: Server) -> None:
    for path in ("/metrics", "/livez", "/readyz", "/state"):
        assert server.get(path).status_code == 404


def test_a_callers_trace_id_stands_in_the_line(server: Server) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    server.get("/items/7", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert last_line(server, "/items/7")["trace_id"] == trace_id


@pytest.mark.parametrize(("level", "seen"), [("debug", ["GET /items/8"]), ("info", [])])
def test_gunicorns_line_of_a_request_that_begins_is_one_at_debug_level(
    serve: Callable[..., Server], level: str, seen: list[str]
) -> None:
    server = serve(OBSERVABILITY_LOG_LEVEL=level)
    assert server.get("/items/8").status_code == 200
    wait_until(lambda: any(line["url.path"] == "/items/8" for line in server.requests_logged()), what="the line")
    said = [line["body"] for line in server.lines() if line.get("logger", "").startswith("gunicorn")]
    assert [body for body in said if body == "GET /items/8"] == seen
