"""Every query of every panel, variable and annotation has its data on a live stack, and no more than it says.

The stack runs once: first bare, then whole under a usual load, then under faults, group by group. Prometheus keeps it
all, and each test looks at the time that concerns its query.
"""

import math
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dashboards.build import Asked, queries
from dashboards.needs import NEEDS
from dashboards.thresholds import PROBES
from tests.dashboards.asking import BOARDS, Grafana, Phase, Series, Window, provisioned
from tests.dashboards.faults import FAILS_ONCE, GROUPS, STANDING, doing, not_here
from tests.dashboards.grafana import Span
from tests.dashboards.stack import CLASSES, Stack, bare
from tests.server import wait_until

pytestmark = pytest.mark.alone

FILLING_SECONDS = (75.0, 40.0)  # of each group: in the first the tuner acts, and looks at what came of it
LEAST_SECONDS = 20.0  # of a group: not all that rises says what it waits for
# A version is news for a rate's window, and the tuner knows a server after one of its own: the usual comes after both.
SETTLING_SECONDS = 35.0
USUAL_SECONDS = 20.0
BARE_SECONDS = 12.0  # in which rates, and what is recorded of them, have begun

# A number, and when there is none; the first two are zero where a server has nothing to do.
WITHOUT = [
    *(("Requests", "gone"), ("Failed", "gone"), ("In flight", "gone")),
    *(("Duration p99", "bare"), ("Redis", "bare")),
]
NO_ROUTE = re.compile(r'"http_route", "([^"]+)", "http_route", ""')  # how a dashboard names requests without one
# Of queries that say zero, those which nothing here can make say more.
NEVER_RISES = {
    ("Numbers that are missing", "B"): "a slot file has room for more series than requests of a minute can make",
}

PROMQL = [each for each in queries() if each.language == "promql"]
PANELS = {(uid, panel["title"]): panel for uid, board in BOARDS.items() for panel in board["panels"]}
# Of panels that do not say when they are empty, what needs nothing to fill; annotations are no panels.
ALWAYS = [
    each
    for each in PROMQL
    if not each.needs
    and (panel := PANELS.get((each.dashboard, each.panel)))
    and "noValue" not in panel["fieldConfig"]["defaults"]
]
NUMBERS = [
    each
    for each in PROMQL
    if each.shape == "range" and PANELS.get((each.dashboard, each.panel), {"type": ""})["type"] == "stat"
]
VARIABLES = [each for each in queries() if each.language in ("label_values", "query_result")]


def name(asked: Asked) -> str:
    return f"{asked.dashboard.removeprefix('sightline-')}-{asked.panel}-{asked.ref}".replace(" ", "_")


@dataclass
class Seen:
    """What ran when, and what is known of it from elsewhere.

    Args:
        grafana: who asks.
        bare: when there was one server, and nobody asked it for anything.
        usual: when all is well.
        canary: the same time, with its one server of that environment chosen.
        two: the same time, with two servers chosen.
        once: when a request failed on a server and route where none had, with that server chosen.
        gone: when no server was seen, for as long as is shown, and longer than a rate's window.
        gone_canary: the same time, with its one environment chosen.
        instances: names of the servers of that time, by what Prometheus calls them.
        workers: their instances and numbers.
        routes: methods and routes that they were asked for.
        faults: when each condition of dashboards/needs.py held.
        broken: when anything was broken at all.
    """

    grafana: Grafana
    bare: Phase
    usual: Phase
    canary: Phase
    two: Phase
    instances: dict[str, str]
    workers: set[tuple[str, str]]
    routes: set[tuple[str, str]]
    once: Phase | None = None
    gone: Phase | None = None
    gone_canary: Phase | None = None
    faults: dict[str, Phase] = field(default_factory=dict)
    broken: list[Phase] = field(default_factory=list)

    def of_class(self, *names: str) -> set[str]:
        return {instance for instance, name in self.instances.items() if name in names}


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """Run the stack through all of it."""
    with bare() as stack:
        grafana = Grafana(stack.prometheus, provisioned())
        before = grafana.phase(_lasting(stack, BARE_SECONDS))
        stack.rest()
        window = _lasting(stack, SETTLING_SECONDS + USUAL_SECONDS)
        window = Window(window.end - USUAL_SECONDS, window.end)
        two = [f"127.0.0.1:{stack.servers[each].agent_port}" for each in ("gevent", "sync")]
        usual, canary = grafana.phase(window), grafana.phase(window, environment=["canary"])
        found = Seen(grafana, before, usual, canary, grafana.phase(window, instance=two), *_known(stack))
        for number in range(len(GROUPS)):
            _provoke(stack, found, number)
        _end_all(stack, found)
        yield found


def _lasting(stack: Stack, seconds: float) -> Window:
    """Wait until all that is to be scraped has been scraped for so long."""
    wait_until(lambda: stack.prometheus.number("count(up == 1)") == stack.scraped(), 30, "all targets")
    start = time.time()
    wait_until(lambda: time.time() > start + seconds, seconds + 5, "time to pass")
    return Window(start, time.time())


def _known(stack: Stack) -> tuple[dict[str, str], set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the servers, their workers, and what the load asked them for, as they say themselves."""
    instances = dict(zip(stack.instances(), stack.servers, strict=True))
    workers = {
        (instance, str(worker["slot"]))
        for instance, server in instances.items()
        for worker in stack.servers[server].state()["workers"]
    }
    lines = [line for server in stack.servers.values() for line in server.requests_logged()]
    return instances, workers, {(line["http.request.method"], line["http.route"]) for line in lines}


def _provoke(stack: Stack, found: Seen, number: int) -> None:
    """Do what a group of faults does until all that waits for it is filled; what is not, fails in its own test."""
    start = time.time()
    with doing(stack, number) as needs:
        waiting = [asked for asked in PROMQL if asked.needs in needs]
        while time.time() < start + (FILLING_SECONDS[number] if waiting else LEAST_SECONDS):
            phase = found.grafana.phase(Window(start, time.time()), {asked.dashboard for asked in waiting})
            waiting = [asked for asked in waiting if not filled(asked, found.grafana.ask(asked, phase, once=False))]
            time.sleep(1)
        phase = found.grafana.phase(Window(start, time.time()))
        found.faults |= dict.fromkeys(needs, phase)
        found.broken.append(phase)
        if number == 0:
            only = f"127.0.0.1:{stack.servers[FAILS_ONCE].agent_port}"
            found.once = found.grafana.phase(phase.window, instance=[only])


def _end_all(stack: Stack, found: Seen) -> None:
    """End every server, and look at a time in which Prometheus saw none."""
    for server in stack.servers.values():
        server.signal(signal.SIGTERM)
    wait_until(lambda: not stack.prometheus.query('up{job="sightline"} == 1 or target_info'), 30, "all to be missed")
    start = time.time()
    rates = Span(0, scrape=found.grafana.scrape).rate_interval + 2
    wait_until(lambda: time.time() > start + rates, rates + 5, "rates to end")
    found.gone = found.grafana.phase(Window(start, time.time()))
    found.gone_canary = found.grafana.phase(found.gone.window, environment=["canary"])


def filled(asked: Asked, series: list[Series]) -> bool:
    """Tell whether there is all that is waited for; of two windows that are compared, both."""
    windows = {"before", "after"} if "window" in asked.by else {""}
    return windows <= {each.labels.get("window", "") for each in series if nonzero([each])}


def nonzero(series: list[Series]) -> bool:
    return any(value for each in series for value in each.values)


def conform(asked: Asked, series: list[Series]) -> None:
    """Check what a query says of its answer; the bucket of a heat map is a label too."""
    assert {frozenset(each.labels) for each in series} == {frozenset(asked.by)}, [each.labels for each in series]
    assert len(series) <= asked.most
    assert len({each.key for each in series}) == len(series)


@pytest.mark.parametrize("asked", [each for each in PROMQL if each.needs in {"", *STANDING}], ids=name)
def test_a_query_has_data_under_the_usual_load(seen: Seen, asked: Asked) -> None:
    if reason := not_here(asked.needs):
        pytest.skip(reason)
    series = seen.grafana.ask(asked, seen.usual)
    assert series, asked.expression
    conform(asked, series)
    if (wanted := expected(seen, asked)) is not None:
        assert {tuple(each.labels.get(label, "") for label in asked.by) for each in series} == wanted


def expected(seen: Seen, asked: Asked) -> set[tuple[str, ...]] | None:
    """Return the values of the labels that the series have, where that is known from elsewhere."""
    if any(word in asked.expression for word in ("topk", 'job="tuner"')) or "$instance" not in asked.expression:
        return None
    among = _among(seen, asked)
    unnamed = NO_ROUTE.search(asked.expression)
    routes = {(method, route or (unnamed[1] if unnamed else "")) for method, route in seen.routes}
    known: dict[tuple[str, ...], set[tuple[str, ...]]] = {
        ("instance",): {(each,) for each in among},
        ("server",): {(each,) for each in among},
        ("instance", "worker"): {each for each in seen.workers if each[0] in among},
        ("http_route",): {(route,) for _, route in routes},
        ("http_request_method", "http_route"): routes,
    }
    found = known.get(tuple(label for label in asked.by if label != "job"))
    if found is None or "job" not in asked.by:
        return found
    at = asked.by.index("job")
    return {(*each[:at], "sightline", *each[at:]) for each in found}


def _among(seen: Seen, asked: Asked) -> set[str]:
    """Return the servers whose classes have what is asked for."""
    if "gunicorn_worker_capacity_requests" in asked.expression:
        return seen.of_class("sync", "gthread", "gevent")  # asgi enforces no bound: docs/worker-classes.md
    classes = {"gthread": ("gthread",), "loop": ("gevent", "asgi")}.get(asked.needs, tuple(CLASSES))
    return seen.of_class(*classes)


@pytest.mark.parametrize("asked", [each for each in PROMQL if each.needs in STANDING], ids=name)
def test_what_a_query_needs_is_what_fills_it(seen: Seen, asked: Asked) -> None:
    assert not nonzero(seen.grafana.ask(asked, seen.bare, once=False))


@pytest.mark.parametrize("asked", ALWAYS, ids=name)
def test_where_a_panel_does_not_say_when_it_is_empty_a_server_whom_nobody_asks_fills_it(
    seen: Seen, asked: Asked
) -> None:
    assert seen.grafana.ask(asked, seen.bare), asked.expression


@pytest.mark.parametrize("asked", NUMBERS, ids=name)
def test_a_number_is_of_now_or_says_that_there_is_none(seen: Seen, asked: Asked) -> None:
    assert seen.gone is not None
    for phase in (seen.bare, seen.usual, seen.gone):
        (shown,) = seen.grafana.shown(asked, phase)
        assert shown is not None, asked.expression
        assert not math.isnan(shown) or "noValue" in PANELS[asked.dashboard, asked.panel]["fieldConfig"]["defaults"]


@pytest.mark.parametrize(("panel", "when"), WITHOUT)
def test_of_what_is_not_there_no_number_is_shown(seen: Seen, panel: str, when: str) -> None:
    (asked,) = [each for each in NUMBERS if each.panel == panel]
    (shown,) = seen.grafana.shown(asked, getattr(seen, when))
    assert shown is not None
    assert math.isnan(shown)


@pytest.mark.parametrize("panel", ["Requests", "Failed"])
def test_of_a_server_whom_nobody_asks_zero_is_shown(seen: Seen, panel: str) -> None:
    (asked,) = [each for each in NUMBERS if each.panel == panel]
    assert seen.grafana.shown(asked, seen.bare) == [0.0]


@pytest.mark.parametrize("asked", [each for each in PROMQL if each.needs not in {"", *STANDING}], ids=name)
def test_a_query_of_what_is_rare_fills_under_its_fault(seen: Seen, asked: Asked) -> None:
    assert not nonzero(seen.grafana.ask(asked, seen.usual, once=False)), "there is data when all is well"
    if reason := not_here(asked.needs):
        pytest.skip(reason)
    series = seen.grafana.ask(asked, seen.faults[asked.needs], once=False)
    assert nonzero(series), asked.expression
    conform(asked, series)


@pytest.mark.parametrize("asked", [each for each in PROMQL if each.needs in {"", *STANDING}], ids=name)
def test_a_query_that_says_zero_when_all_is_well_says_more_when_it_is_not(seen: Seen, asked: Asked) -> None:
    if reason := not_here(asked.needs) or NEVER_RISES.get((asked.panel, asked.ref)):
        pytest.skip(reason)
    phases = (seen.usual, *seen.broken)
    times = [(phase, once) for phase in phases for once in (False, True)]  # what comes late may lie between two points
    assert any(nonzero(seen.grafana.ask(asked, phase, once=once)) for phase, once in times), asked.expression


@pytest.mark.parametrize("asked", VARIABLES, ids=name)
def test_a_variable_offers_what_there_is(seen: Seen, asked: Asked) -> None:
    (label,) = asked.by
    wanted = {
        "deployment_environment_name": {"test", "canary"},
        "job": {"sightline"},
        "instance": set(seen.instances),
        "service_name": {"sightline"},
        "worker": {worker for _, worker in seen.workers},
        "http_route": {route for _, route in seen.routes if route} - set(PROBES),
    }[label]
    assert set(seen.usual.variables[asked.dashboard][asked.ref].options) == wanted
    assert len(wanted) <= asked.most


@pytest.mark.parametrize("uid", sorted(BOARDS))
def test_a_choice_narrows_all_queries_after_it(seen: Seen, uid: str) -> None:
    """The canary is one server; with it chosen, nothing of the others is left, nor where two servers are chosen."""
    (canary,) = seen.of_class("gevent")
    assert seen.canary.variables[uid]["instance"].options == [canary]
    asked = [each for each in PROMQL if each.dashboard == uid and "$instance" in each.expression and not each.needs]
    by_instance = [each for each in asked if "instance" in each.by]
    for each in by_instance:
        every = _of(seen.grafana.ask(each, seen.usual))
        assert _of(seen.grafana.ask(each, seen.canary)) == every & {canary}, each
        assert _of(seen.grafana.ask(each, seen.two)) == every & seen.of_class("gevent", "sync"), each
    assert by_instance or uid in ("sightline-dependencies", "sightline-logs-traces")


def _of(series: list[Series]) -> set[str]:
    return {each.labels["instance"] for each in series}


@pytest.mark.parametrize("panel", ["Failed", "Failed by route and error", "Failing routes"])
def test_the_first_failure_of_a_route_is_drawn(seen: Seen, panel: str) -> None:
    """Its series begins with it: nobody has seen it at zero."""
    asked = [each for each in PROMQL if (each.dashboard, each.panel, each.ref) == ("sightline-service", panel, "A")]
    assert seen.once is not None
    series = seen.grafana.ask(asked[0], seen.once, once=False)
    assert nonzero([each for each in series if each.labels.get("http_route", "/faults/fail") == "/faults/fail"])


def test_each_server_has_a_colour_of_its_own(seen: Seen) -> None:
    """By the last digit of its agent's port."""
    assert len({instance[-1] for instance in seen.instances}) == len(CLASSES)


def test_each_step_of_the_tuner_is_drawn_with_its_end(seen: Seen) -> None:
    (decisions,) = [each for each in PROMQL if each.panel == "Decisions"]
    (marks,) = [each for each in PROMQL if each.panel == "annotation Tuner"]
    for asked in (decisions, marks):
        phase = seen.faults["tuner-action"]  # whose end may lie between two points
        found = [each for once in (False, True) for each in seen.grafana.ask(asked, phase, once=once)]
        drawn = {each.labels["outcome"] for each in found if nonzero([each])}
        assert "applied" in drawn, drawn
        assert drawn & {"kept", "undone", "inconclusive"}, drawn


@pytest.mark.parametrize("uid", sorted(BOARDS))
def test_all_goes_on_standing_for_servers_that_are_not_seen(seen: Seen, uid: str) -> None:
    assert seen.gone is not None
    known = seen.gone.variables[uid]
    assert set(known["environment"].options) == {"test", "canary"}
    assert known["job"].options == ["sightline"]
    assert set(known["instance"].options) >= set(seen.instances)


@pytest.mark.parametrize("uid", sorted(BOARDS))
def test_a_chosen_environment_goes_on_standing_for_its_servers(seen: Seen, uid: str) -> None:
    assert seen.gone_canary is not None
    known = seen.gone_canary.variables[uid]
    assert known["job"].options == ["sightline"]
    assert set(known["instance"].options) == seen.of_class("gevent")


def test_where_no_server_is_seen_the_first_panels_say_so(seen: Seen) -> None:
    assert seen.gone is not None
    (asked,) = [each for each in PROMQL if (each.dashboard, each.panel) == ("sightline-service", "Seen")]
    assert [each.values for each in seen.grafana.ask(asked, seen.gone, once=True)] == [(0.0,)]


def test_each_need_is_provoked_or_said_to_be_impossible_here(seen: Seen) -> None:
    elsewhere = {"slow", "annotator", *STANDING}  # these are seen in logs and traces only
    assert set(NEEDS) - elsewhere - {need for need in NEEDS if not_here(need)} == set(seen.faults)
