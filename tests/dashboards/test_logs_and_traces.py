"""What the dashboards ask of Loki and Tempo finds real log lines and real spans, by their own grammars."""

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from dashboards.build import Asked, queries
from scripts import venv
from tests.dashboards.grafana import ALL, Span, Variable, substitute
from tests.dashboards.proxy import Proxy
from tests.dashboards.reading import Line, Node, Unread, fields, lines, named, parse, spans
from tests.grafana.command import Annotator
from tests.grafana.exporter import Exporter, scraped
from tests.otlp import ReceivedSpan, Receiver
from tests.prometheus import Prometheus
from tests.prove.load import ask
from tests.server import ROOT, Server, free_port, wait_until

ALLOY = (ROOT / "monitoring/alloy/config.alloy").read_text()
LOGQL = [each for each in queries() if each.language == "logql"]
TRACEQL = [each for each in queries() if each.language == "traceql"]
ROUTES = ["/todos/<id>", "/faults/fail", "/faults/sleep", "/todos"]
ODD_ROUTES = ['/a/"b"', "/a\\b", "/a.b|c(d)*", "/a'b"]


def uses(asked: Asked, variable: str) -> bool:
    return re.search(rf"\$\{{?{variable}\b", asked.expression) is not None


def name(asked: Asked) -> str:
    return f"{asked.dashboard.removeprefix('sightline-')}-{asked.panel}-{asked.ref}".replace(" ", "_")


def _texts(pattern: str) -> list[str]:
    """Return the texts of a list, or the keys of an object, in Alloy's configuration."""
    (found,) = re.findall(pattern, ALLOY)
    return re.findall(r'"(\w+)"', found) or re.findall(r"(\w+) =", found)


LABELS = set(_texts(r"stage\.label_keep \{\s*values = \[(.*)\]"))
METADATA = set(_texts(r"stage\.structured_metadata \{\s*values = \{(.*)\}"))
EXTRACTED = {
    taken: source or taken
    for taken, source in re.findall(r'(\w+) = "(\w*)"', re.findall(r"expressions = \{(.*)\}", ALLOY)[0])
}


@dataclass
class Seen:
    """Lines and spans of a server and its proxy that have seen all that the dashboards ask for."""

    lines: list[Line]
    spans: list[ReceivedSpan]


def _line(text: str, service: str) -> Line:
    """Take from a line what Alloy takes from it."""
    said = json.loads(text)
    taken = {name: str(said[source]) for name, source in EXTRACTED.items() if source in said}
    every = taken | {"service": service, "container": f"{service}-1"}
    return Line(
        {key: value for key, value in every.items() if key in LABELS},
        {key: value for key, value in every.items() if key in METADATA},
        text,
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Have requests, failures, slow requests, a blocked loop, a time-out and a dead worker on one gevent server."""
    directory = tmp_path_factory.mktemp("logs")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)  # nginx' own user goes by here
    (directory / "nginx").mkdir()
    with Receiver() as receiver:
        env = {"APP_ENV": "test", "FAULTS_ENABLED": 1, "GUNICORN_TIMEOUT": 3, "GUNICORN_GRACEFUL_TIMEOUT": 2}
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRACES_SAMPLER_ARG": 1}
        with (
            Server(directory, "app:create_app()", **env, **tracing) as server,
            Proxy(directory / "nginx", [f"127.0.0.1:{server.port}"]) as proxy,
        ):
            for method, path in (("POST", "/todos"), ("GET", "/todos/1"), ("GET", "/nothing-here")):
                ask(proxy.url + path, method)
            for path in ("/faults/fail", "/faults/sleep?seconds=1.1", "/faults/block?seconds=2"):
                ask(proxy.url + path)
            ask(server.url + "/faults/block?seconds=30")  # until it is killed by its time-out
            server.signal(signal.SIGKILL, server.worker_pids()[0])
            ends = ("http.server.request.timeout", "gunicorn.worker.loop_blocked", "gunicorn.worker.exit")
            for end in ends:
                wait_until(lambda end=end: any(each.get("event.name") == end for each in server.lines()), 20, end)
            found = receiver.wait_for(lambda found: any("sleep" in str(span.attributes) for span in found))
            texts = {"app": server.log_path, "nginx": directory / "nginx/access.log"}
            texts["annotator"] = annotated(directory / "annotator")
            yield Seen(
                [_line(text, service) for service, path in texts.items() for text in path.read_text().splitlines()],
                found,
            )


def annotated(directory: Path) -> Path:
    """Return the log of an annotator that finds no Grafana, and more than it can keep meanwhile."""
    venv.ensure(environment=venv.GRAFANA)
    directory.mkdir()
    counters = ("gunicorn_reloads_total", 'gunicorn_worker_exits_total{cause="timeout"}')
    with Exporter() as app, Prometheus(directory, config=scraped(("app", app.target))) as prometheus:
        app.values = dict.fromkeys(counters, 0.0)
        nowhere = f"http://127.0.0.1:{free_port()}"
        settings = {"PROMETHEUS_URL": prometheus.url, "GRAFANA_SPOOL_MOST": 1}
        with Annotator(directory / "spool", nowhere, **settings) as annotator:
            wait_until(lambda: annotator.state().get("looked_until"), 30, "the annotator")
            wait_until(lambda: prometheus.number("count(gunicorn_reloads_total)") == 1, 30, "a scrape")
            for each in counters:
                app.add(each)
            wait_until(lambda: "annotations dropped" in annotator.log(), 30, "more than is kept")
    return annotator.log_path


def sent(asked: Asked, service: str = ALL, route: str = ALL) -> str:
    """Put in for the variables what a user sees at first, or with one service or route chosen."""
    every = {"multi": True, "include_all": True}
    variables = {
        "environment": Variable([ALL], ["test", "canary"], all_value=".*", **every),
        "name": Variable([service], ["sightline", "another"], **every),
        "route": Variable([route], ROUTES, all_value=".*", **every),
        "worker": Variable([ALL], ["1", "2"], all_value=".*", **every),
    }
    return substitute(asked.expression, variables, Span(1800, scrape=5), asked.language)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    """Parse all queries, by what is asked."""
    found = {}
    for language, every in {"logql": LOGQL, "traceql": TRACEQL}.items():
        texts = sorted({sent(each) for each in every})
        found |= dict(zip(texts, parse(language, texts, tmp_path_factory.mktemp(language)), strict=True))
    return found


def test_alloy_takes_what_is_looked_for():
    assert {"service", "level"} <= LABELS
    assert {"trace_id", "span_id"} <= METADATA


@pytest.mark.parametrize("asked", LOGQL, ids=name)
def test_a_log_query_names_what_lines_have(read: dict[str, Node], seen: Seen, asked: Asked):
    query = read[sent(asked)]
    (selector,) = query.all("Selector")
    services = {line["service"] for line in lines(selector_only(query), seen.lines)}
    assert named(selector) <= LABELS
    known = {each for line in seen.lines if line.labels["service"] in services for each in fields(line.text)}
    assert named(query) <= known | LABELS | METADATA
    assert {label for group in query.all("Grouping") for label in named(group)} == set(asked.by) <= LABELS


def selector_only(query: Node) -> Node:
    """Return the query without what follows its selector."""
    return Node(query.name, query.text, False, tuple(query.all("Selector")))


@pytest.mark.parametrize("asked", LOGQL, ids=name)
def test_a_log_query_finds_lines(read: dict[str, Node], seen: Seen, asked: Asked):
    assert lines(read[sent(asked)], seen.lines), sent(asked)


def test_the_query_of_workers_finds_each_of_their_ends(read: dict[str, Node], seen: Seen):
    (asked,) = [each for each in LOGQL if "gunicorn.worker.exit" in each.expression]
    wanted = set(re.findall(r"[a-z_]+(?:\.[a-z_]+){2,}", asked.expression))
    assert {line["event_name"] for line in lines(read[sent(asked)], seen.lines)} == wanted


@pytest.mark.parametrize("asked", TRACEQL, ids=name)
def test_a_trace_query_finds_spans(read: dict[str, Node], seen: Seen, asked: Asked):
    assert spans(read[sent(asked)], seen.spans), sent(asked)


def test_with_nothing_chosen_every_request_is_found(read: dict[str, Node], seen: Seen):
    """Those without a route too."""
    (of_lines,) = [each for each in LOGQL if each.panel == "Requests"]
    (of_spans,) = [each for each in TRACEQL if each.panel == "Traces"]
    said = [fields(line.text) for line in seen.lines if line.labels["service"] == "app"]
    requests = [each for each in said if each.get("event_name") == "http.server.request"]
    assert len(lines(read[sent(of_lines)], seen.lines)) == len(requests)
    servers = [each for each in seen.spans if each.kind == "server"]
    assert {each.span_id for each in spans(read[sent(of_spans)], seen.spans)} == {each.span_id for each in servers}
    assert any(not each["http_route"] for each in requests)
    assert any("/nothing-here" in str(each.attributes) for each in servers)


@pytest.mark.parametrize("asked", [each for each in (*LOGQL, *TRACEQL) if uses(each, "name")], ids=name)
def test_what_is_chosen_above_narrows_lines_and_spans(tmp_path, seen: Seen, asked: Asked):
    (query,) = parse(asked.language, [sent(asked, "another")], tmp_path)
    assert (lines(query, seen.lines) if asked.language == "logql" else spans(query, seen.spans)) == []


@pytest.mark.parametrize("route", ODD_ROUTES)
def test_a_route_of_any_letters_is_found_and_no_other(tmp_path, seen: Seen, route: str):
    asked = [each for each in LOGQL if each.panel == "Requests"] + [each for each in TRACEQL if each.panel == "Traces"]
    of_lines, of_spans = (parse(each.language, [sent(each, route=route)], made(tmp_path, each))[0] for each in asked)
    line = next(each for each in seen.lines if fields(each.text).get("http_route") == "/todos")
    written = replace(line, text=json.dumps(json.loads(line.text) | {"http.route": route}))
    assert [each["http_route"] for each in lines(of_lines, [*seen.lines, written])] == [route]
    span = next(each for each in seen.spans if each.kind == "server")
    named = replace(span, name=f"GET {route}")
    assert spans(of_spans, [*seen.spans, named]) == [named]


def made(directory: Path, asked: Asked) -> Path:
    path = directory / asked.language
    path.mkdir()
    return path


def test_only_what_is_shared_by_all_services_is_not_narrowed():
    shared = [each for each in (*LOGQL, *TRACEQL) if not uses(each, "name")]
    assert {each.panel for each in shared} == {
        "Lines by container",
        "Failed at the proxy",
        "What the annotator warns of",
    }


def test_a_span_leads_to_the_lines_of_its_trace(seen: Seen, tmp_path):
    sources = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/sightline.yml").read_text())
    (tempo,) = [each for each in sources["datasources"] if each["uid"] == "tempo"]
    asked = tempo["jsonData"]["tracesToLogsV2"]["query"]
    span = next(each for each in seen.spans if each.kind == "server")
    (query,) = parse("logql", [asked.replace("$${__span.traceId}", span.trace_id)], tmp_path)
    assert {line["trace_id"] for line in lines(query, seen.lines)} == {span.trace_id}


@pytest.mark.parametrize(
    ("language", "query"),
    [
        ("logql", '{service="app"} | json | level='),
        ("logql", '{service="app" | json'),
        ("logql", "sum by (service) (rate({service=~`.+`}[5m])"),
        ("logql", '{service="app"} | jason'),
        ("traceql", '{ span.http.route =~ "/" && }'),
        ("traceql", "{ kind = server && status = error"),
        ("traceql", "{ kind == server }"),
    ],
)
def test_a_syntax_error_is_found(tmp_path, language, query):
    with pytest.raises(Unread):
        parse(language, [query], tmp_path)


def test_what_no_line_has_is_not_found(tmp_path, seen):
    asked = ['{service="app"} | json | http_rout="/todos"', '{service="app"} | http_route="/todos"']
    assert [lines(query, seen.lines) for query in parse("logql", asked, tmp_path)] == [[], []]


def test_what_no_span_has_is_not_found(tmp_path, seen):
    asked = ['{ span.http.rout =~ ".*" }', "{ resource.http.route != nil }", "{ kind = server && duration > 1h }"]
    assert [spans(query, seen.spans) for query in parse("traceql", asked, tmp_path)] == [[], [], []]
