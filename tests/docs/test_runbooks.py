"""What a runbook has people ask is valid and names only what exists, and what it has them run is there.

Queries stand in blocks marked `promql`, one a block, and commands in blocks marked `sh`.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from observability.agent.server import create_agent_app
from observability.agent.view import View
from scripts import configs, services
from scripts.options import Options
from tests.docs import names
from tests.prometheus import program
from tests.server import ROOT, end, free_port, wait_until

PAGES = sorted((ROOT / "runbooks").glob("*.md"))
RULES = [
    rule
    for path in sorted((ROOT / "monitoring/prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}

BLOCK = re.compile(r"^( *)```(promql|sh)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^## What the tuner does\n\n(.*?)^## ", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)(/[\w./-]*)?")
EVENT = re.compile(r"\b(?:gunicorn|http)(?:\.[a-z_]+){2,}")
TEXT = re.compile(r"\"[^\"]*\"|#.*$|\[[^\]]*\]|\boffset \w+|\{[^{}]*\}", re.MULTILINE)  # of PromQL, with no names in it
NAMED_BY = re.compile(r"\b__name__=~\"([^\"]*)\",?")
WORDS_OF_PROMQL = {"and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right", "bool"}
# https://github.com/prometheus/blackbox_exporter, prober/tls.go and main.go: a program that is not run here
PROBED = {"probe_success": {"job", "instance"}, "probe_ssl_earliest_cert_expiry": {"job", "instance"}}
SEPARATORS = {"|", "||", "&&", ";"}


@dataclass(frozen=True)
class Page:
    """A runbook's text, and what stands in its blocks."""

    text: str

    def blocks(self, language: str) -> list[str]:
        return [block.strip() for _, found, block in BLOCK.findall(self.text) if found == language]

    @property
    def commands(self) -> list[list[str]]:
        return [each for block in self.blocks("sh") for line in block.splitlines() for each in parts(line)]


def parts(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell's line; comments, redirections and assignments are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
        elif words:
            yield words
            words = []


def metrics(query: str) -> list[str]:
    """Return the names of series in a query: the words that are no function, keyword, label or text."""
    bare = names.GROUPED.sub(" ", TEXT.sub(" ", query))
    found = re.finditer(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(\s*\()?", bare)
    return [each[1] for each in found if not each[2] and each[1] not in WORDS_OF_PROMQL]


def problems(query: str, exists: names.Known) -> list[str]:
    """Return what a query names and what does not exist."""
    unheard = [name for name in metrics(query) if name not in exists.series]
    unheard += [each for each in NAMED_BY.findall(query) if not any(re.fullmatch(each, name) for name in exists.series)]
    return [f"metric {name}" for name in unheard] + list(names.unknown(NAMED_BY.sub("", query), exists))


def labels_of(name: str) -> set[str]:
    """Return the labels that a recorded value may have: its rule's, and those that the rules it stands on group by."""
    rule = RECORDED[name]
    grouped = {label.strip() for group in names.GROUPED.findall(rule["expr"]) for label in group.split(",")}
    under = (labels_of(each) for each in metrics(rule["expr"]) if each in RECORDED)
    return grouped.union(rule.get("labels", {}), *under)


def check(*command: object) -> str:
    """Run a tool, and return what it complains of."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def refused(queries: list[str], directory: Path) -> str:
    """Return what promtool says of queries, each as a recording rule of its own."""
    rules = [{"record": f"query:number:{number}", "expr": query} for number, query in enumerate(queries)]
    path = directory / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    return check(program("promtool"), "check", "rules", path)


@contextmanager
def running(name: str, options: Options, directory: Path) -> Iterator[None]:
    """Run Prometheus or Alertmanager as native mode does."""
    service = services.service(name, options)
    assert service is not None, f"{name} is not installed: apt-get install prometheus prometheus-alertmanager"
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(list(service.command), env=dict(service.environ), stdout=log, stderr=log)
    try:
        wait_until(lambda: requests.get(service.ready, timeout=2).ok, 30, name)
        yield
    finally:
        end(process)


def scraped(url: str) -> dict[str, set[str]]:
    """Return all series that Prometheus has seen, with their labels."""

    def ask(path: str, **parameters: str) -> Any:
        answer = requests.get(f"{url}/api/v1/{path}", params=parameters, timeout=10)
        return answer.json()["data"]

    wait_until(lambda: ask("query", query='count(up{job=~"prometheus|alertmanager"} == 1) == 2')["result"], 30)
    wait_until(lambda: ask("query", query="ALERTS")["result"], 30, "Watchdog")
    return {name: set(ask("labels", **{"match[]": name})) for name in ask("label/__name__/values")}


@pytest.fixture(scope="module")
def exists(tmp_path_factory) -> names.Known:
    """Give all series and labels: the catalogue's, the recorded ones, and those of Prometheus and Alertmanager."""
    directory = tmp_path_factory.mktemp("monitors")
    ports = {name: free_port() for name in ("app_port", "agent_port", "prometheus_port", "alertmanager_port")}
    options = replace(Options(), run_dir=str(directory), **ports)
    configs.render(options)
    path = directory / "prometheus/prometheus.yml"
    config = yaml.safe_load(path.read_text())
    for settings in (config["global"], *config["scrape_configs"]):
        settings |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config["global"]["evaluation_interval"] = "1s"
    path.write_text(yaml.safe_dump(config))
    with ExitStack() as stack:
        for name in ("alertmanager", "prometheus"):
            stack.enter_context(running(name, options, directory))
        others = scraped(f"http://127.0.0.1:{options.prometheus_port}")
    known = names.known()
    recorded = {name: labels_of(name) for name in RECORDED}
    return replace(known, series={**others, **PROBED, **recorded, **known.series})


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request) -> Page:
    return Page(request.param.read_text())


def test_queries_are_valid(page, tmp_path):
    assert refused(page.blocks("promql"), tmp_path) == ""


def test_queries_name_only_what_exists(page, exists):
    assert {query: problems(query, exists) for query in page.blocks("promql") if problems(query, exists)} == {}


def test_a_page_has_something_to_ask_or_to_run(page):
    diagnosis = Page(page.text.partition("\n## Diagnosis\n")[2].partition("\n## ")[0])
    assert diagnosis.blocks("promql") + diagnosis.blocks("sh")
    assert len(BLOCK.findall(page.text)) == page.text.count("```") / 2, "each block is a query or a command"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_tuner_acts_on_the_alerts_that_are_sent_to_it(path):
    """Which those are, the label `tuner` says."""
    (says,) = SECTION.findall(path.read_text())
    sent = ALERTS[path.stem]["labels"].get("tuner") == "true"
    assert says.startswith("Nothing") != sent


# The programs whose subcommands can be known, and what is wrong with the words after them.


def _module(words: list[str]) -> str:
    if words[:1] != ["-m"]:
        return "python without -m"
    if words[1] == "observability":
        return _observability(words[2:])
    return check(sys.executable, "-m", words[1], "--help")


def _observability(words: list[str]) -> str:
    described = subprocess.run(
        [sys.executable, "-m", "observability", words[0], "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    options = {word for word in words if word.startswith("--")}
    unknown = options - set(re.findall(r"--[a-z]+", described.stdout))
    return described.stderr or (f"no option {unknown}" if unknown else "")


def _target(words: list[str]) -> str:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    given = {word for word in words if "=" not in word}
    return f"no target {given - known}" if given - known else ""


def _monitor(tool: str) -> Callable[[list[str]], str]:
    """Ask the tool itself: with an unknown subcommand or flag, it does not come to its help."""
    return lambda words: check(program(tool), *(word for word in words if "/" not in word or "=" in word), "--help")


SPECIAL: dict[str, Callable[[list[str]], str]] = {
    "python": _module,
    "make": _target,
    "promtool": _monitor("promtool"),
    "amtool": _monitor("amtool"),
}


def lacking(words: list[str]) -> str:
    """Return what is wrong with a command: nothing, where all that it names is there."""
    name = words[0]
    if "/" in name and not (ROOT / name).exists():
        return f"no file {name}"
    if "/" not in name and name != "python" and shutil.which(name) is None:
        return f"no program {name}"
    special = SPECIAL.get(Path(name).name)
    return special(words[1:]) if special else ""


def test_commands_are_there(page):
    found = {shlex.join(words): lacking(words) for words in page.commands}
    assert {command: problem for command, problem in found.items() if problem} == {}


def test_addresses_are_those_of_make_up(page, tmp_path):
    options = Options()
    routes = create_agent_app(View(tmp_path)).url_map.bind("localhost")
    for port, path in ADDRESS.findall(page.text):
        if int(port) == options.agent_port:
            assert routes.match((path or "/").replace("SLOT", "1"))
        else:
            assert int(port) in {*options.ports().values(), 6379, 443}


def test_events_are_those_of_the_log(page):
    sources = "".join(path.read_text() for path in (ROOT / "observability").rglob("*.py"))
    fields = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", (ROOT / "docs/log.md").read_text()))
    for name in EVENT.findall(page.text):
        assert f'"{name}"' in sources or name in fields


@pytest.mark.parametrize(
    "query",
    [
        "sum by (instance) (rate(gunicorn_worker_requests_total[5m] offset 1h)) > bool 0",
        'sum(up{job="sightline"} == 1) or on () vector(1) # a metric_of_a_comment',
        'instance_cause:gunicorn_worker_exits:increase5m{cause="timeout"}',
        "rate(prometheus_notifications_errors_total[5m]) or alertmanager_notifications_failed_total - probe_success",
        'ALERTS{alertstate="firing"}',
        '{__name__=~"job:slo_burn:rate.*", slo="latency"} > job:slo_burn:rate5m{slo="latency"}',
        "topk(5, scrape_samples_scraped) * on (job, instance) group_left () observability_store_files",
    ],
)
def test_a_name_that_somebody_has_is_known(query, exists):
    assert problems(query, exists) == []


@pytest.mark.parametrize(
    "query",
    [
        "instance:gunicorn_worker_busy_ratio:avg / instance:gunicorn_worker_busy_ratio:max",
        'instance_cause:gunicorn_worker_exits:increase5m{worker="1"}',
        "rate(prometheus_notification_errors_total[5m])",
        'up{worker="1"}',
        '{__name__=~"prometheus_configs_.*"}',
        "rate(gunicorn_requests_total[5m])",
        "sum by (pid) (up)",
    ],
)
def test_a_name_that_nobody_has_is_seen(query, exists):
    assert problems(query, exists)


@pytest.mark.parametrize("query", ["rate(up)", "sum by instance (up)", 'up{job="sightline"'])
def test_a_query_that_is_not_valid_is_seen(query, tmp_path):
    assert refused(["up", query], tmp_path)


@pytest.mark.parametrize(
    ("line", "well"),
    [
        ("curl -s http://127.0.0.1:9101/state | .venv/bin/python -m json.tool", True),
        ("curl -s http://127.0.0.1:9101/state | .venv/bin/python -m jason.tool", False),
        ("python -m observability top --once --sort busy", True),
        ("python -m observability top --twice", False),
        ("python -m observability doctors", False),
        ("make up MODE=native && make down", True),
        ("make up && make upp", False),
        ("promtool check rules monitoring/prometheus/rules/*.yml", True),
        ("promtool check ruler monitoring/prometheus/rules/*.yml", False),
        ("amtool alert --alertmanager.url=http://127.0.0.1:9093", True),
        ("amtool alert --alertmanager.uri=http://127.0.0.1:9093", False),
        ("scripts/python.sh -m json.tool", True),
        ("scripts/ruby.sh", False),
        ("grep a .run/logs/app.log | no-such-program", False),
    ],
)
def test_a_command_that_is_not_there_is_seen(line, well):
    assert (not any(map(lacking, parts(line)))) == well
