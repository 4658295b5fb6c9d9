"""The benchmarks' arithmetic, what they read and write, and that the cheap ones run; nothing here judges a time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench import account, load, maths, overhead, pages, peers, plots, report, scale, scrape, targets, variants
from bench.__main__ import BENCHMARKS, parser
from bench.servers import ROOT, cpu_seconds, free_port

REPORT = """Running 2s test @ http://127.0.0.1:8000/todos
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.06ms    1.26ms  31.39ms   95.86%
    Req/Sec     5.31k   417.23     5.94k    75.00%
  Latency Distribution
     50%    2.91ms
     75%    3.08ms
     90%    3.41ms
     99%  310.05us
  10568 requests in 2.01s, 9.38MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 5
Requests/sec:   5260.64
Transfer/sec:      4.67MB
"""


def test_wrk_s_report_is_read():
    assert load.parse(REPORT) == load.Load(10568, 2.01, pytest.approx(0.00291), pytest.approx(0.00031005), 4, 5)
    assert load.parse(REPORT).rate == pytest.approx(10568 / 2.01)


@pytest.mark.parametrize("text", ["", "unable to connect to 127.0.0.1:1 Connection refused", "  0 requests in 1.00s,"])
def test_a_report_without_answers_is_refused(text):
    with pytest.raises(load.LoadError):
        load.parse(text)


def test_the_load_has_a_core_of_its_own_where_there_are_two():
    where = load.cores(64)
    assert where.workers
    assert where.apart == (len({*where.workers, *where.others}) > 1)


def test_ratios_are_to_the_base_of_the_same_round():
    rounds = [{"bare": 100.0, "ours": 110.0}, {"bare": 200.0, "ours": 210.0}, {"ours": 1.0}]
    assert maths.ratios(rounds, "ours", "bare") == [1.1, 1.05]
    assert maths.medians(rounds) == {"bare": 150.0, "ours": 110.0}


def test_quartiles_of_one_value_are_that_value():
    assert maths.spread([2.0]) == (2.0, 2.0)
    assert maths.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)


@pytest.mark.parametrize(("power", "factor"), [(0.0, 5.0), (1.0, 0.3), (2.0, 7.0)])
def test_the_slope_is_the_exponent(power, factor):
    points = [(x, factor * x**power) for x in (1, 3, 10, 200)]
    assert maths.slope(points) == pytest.approx(power)


def test_a_target_is_met_as_it_is_printed():
    least, most = targets.BY_NAME["throughput"], targets.BY_NAME["cpu_gevent"]
    assert most.met(1.1004)
    assert not most.met(1.101)
    assert least.met(0.93)
    assert not least.met(0.929)
    assert (most.wanted, least.wanted) == ("<=1.1", ">=0.93")


def test_every_target_belongs_to_a_benchmark_and_has_a_name_of_its_own():
    assert {target.benchmark for target in targets.TARGETS} <= BENCHMARKS.keys()
    assert len(targets.BY_NAME) == len(targets.TARGETS)
    assert not any(" " in target.name for target in targets.TARGETS)


def test_the_last_lines_are_name_value_target():
    rows = [report.row(targets.BY_NAME["scrape"], 0.0634), report.row(targets.BY_NAME["throughput"], 0.9)]
    assert report.last_lines(rows) == "scrape 0.063 <=0.1\nthroughput 0.900 >=0.93"
    assert [row["met"] for row in rows] == [True, False]


def test_the_summary_has_a_line_for_each_target():
    row = report.row(targets.BY_NAME["scrape"], 0.0634)
    lines = report.summary([{"rows": [row]}]).splitlines()
    assert len(lines) == len(targets.TARGETS) + 2
    assert "| Scrape of 64 slots x 50 routes / MultiProcessCollector | 0.0634 | ≤ 0.1 | met |" in lines
    assert sum("not measured" in line for line in lines) == len(targets.TARGETS) - 1


def test_text_between_marks_is_replaced():
    page = "before\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nafter\n"
    assert report.inserted(page, "x", "new\n") == page.replace("old", "new")
    with pytest.raises(ValueError, match="no <!-- bench:y -->"):
        report.inserted(page, "y", "new")


def _rounds(*cpu: dict[str, float]) -> list[dict[str, dict[str, float]]]:
    return [{name: {"cpu_us": value, "rate": 1e6 / value} for name, value in each.items()} for each in cpu]


def test_each_variant_is_compared_with_the_bare_server_of_its_own_gunicorn():
    rounds = _rounds({"bare": 100, "ours": 110, "bare_gunicorn_23": 200, "gunicorn_exporter": 300})
    assert overhead.compared(rounds, "cpu_us") == {"ours": [1.1], "gunicorn_exporter": [1.5]}


def test_overhead_s_rows_are_medians_of_ratios():
    raw = {"gevent": _rounds({"bare": 100, "ours": 110}, {"bare": 100, "ours": 120}, {"bare": 200, "ours": 210})}
    found = overhead._result(overhead.Settings(quick=True), raw, 1.0, load.cores(), 7)
    assert {row["name"]: row["value"] for row in found["rows"]} == {"cpu_gevent": 1.1, "throughput": 0.9091}
    assert "| gevent | Sightline, all signals | 120 | 1.10 | 0.91 |" in overhead.tables(found)


def test_all_that_is_served_has_words_and_its_environment_s_pins():
    for variant in (variant for plan in overhead.PLAN.values() for variant in plan):
        assert variant.name in variants.WORDS
        assert (ROOT / variant.config).exists()
        assert not variant.environment or variant.environment in peers.names()
    assert {path.stem for path in peers.PINS.glob("*.in")} == set(peers.names())


@pytest.mark.parametrize("name", peers.names())
def test_a_peer_s_requirements_are_pinned_with_hashes_and_name_no_host(name):
    text = (peers.PINS / f"{name}.txt").read_text()
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pinned
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in text


def test_peers_run_the_flask_and_the_gunicorn_that_we_do():
    ours = (ROOT / "requirements.txt").read_text()
    for name in peers.names():
        same = ("flask", "gevent") if name == "gunicorn_exporter" else ("flask", "gevent", "gunicorn")
        assert all(f"\n{package}=={peers.version(name, package)} " in f"\n{ours}" for package in same)


def test_the_command_line_has_every_benchmark_and_the_quick_way():
    for name, module in BENCHMARKS.items():
        quick = module.settings_of(parser().parse_args([name, "--quick"]))
        assert quick.quick
        assert not module.settings_of(parser().parse_args([name])).quick


def python(code: str, *arguments: object) -> None:
    """Run code in a process of its own: it forks, or takes over the log."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)


QUICK_SCRAPE = """
import sys
from pathlib import Path
from bench import report, scrape
settings = scrape.Settings(slots=3, routes=2, rounds=2, recycled=6, pool=2, peer_recycled=2, quick=True)
report.write(scrape.run(settings), Path(sys.argv[1]))
"""


def test_quick_scrape(tmp_path):
    python(QUICK_SCRAPE, tmp_path)
    found = json.loads((tmp_path / "scrape.quick.json").read_text())
    assert set(report.KEYS) == found.keys()
    assert [row["name"] for row in found["rows"]] == ["scrape", "scrape_recycled"]
    assert found["medians"]["files_after"] == 2
    assert len(found["rounds"]) == 2
    assert found["settings"]["slots"] == 3
    assert report.read("scrape", tmp_path) is None  # a quick one is no result
    assert scrape.tables(found).count("\n") == 7


def test_both_sides_of_the_scrape_say_the_same(tmp_path):
    """A ratio means something only where both have answered the same question."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    scrape.their_files(theirs, range(1, 4), 2)
    with scrape.our_slots(ours, 3, 2):
        mine = scrape.our_scrape(scrape.Scraper(ours)).decode()
    peers_own = scrape.their_scrape(theirs).decode()
    names = tuple(metric.name for metric in scrape.METRICS)
    assert _series(mine, names) == _series(peers_own, names)
    assert len(_series(mine, names)) == 2 * sum(len(metric.buckets) + 3 for metric in scrape.METRICS)


def _series(text: str, names: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {}
    for sample in samples:
        if sample.name.startswith(names):
            labels = {name: float(value) if name == "le" else value for name, value in sample.labels.items()}
            found[(sample.name, *(f"{name}={labels[name]}" for name in sorted(labels)))] = sample.value
    return found


ACCOUNT = """
import json, sys
from pathlib import Path
from bench import account, scrape
from observability import catalogue
directory = Path(sys.argv[1])
with account.prepared(directory, "http://127.0.0.1:9") as calls:
    named = list(calls)
    times = account.net({name: account.time_us(call, 3) for name, call in calls.items()})
    page = scrape.Scraper(directory / "state").scrape()[0]
series = page[catalogue.REQUEST_DURATION.name].children.values()
counted = sum(point.value for each in series for (suffix, _), point in each.items() if suffix == "_bucket")
(directory / "account.json").write_text(json.dumps([named, times, counted]))
"""


def test_the_account_measures_each_part_that_it_lists(tmp_path):
    python(ACCOUNT, tmp_path)
    named, times, counted = json.loads((tmp_path / "account.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert set(named) - {"nothing", "bare app"} == set(account.PARTS)
    assert list(times) == list(account.PARTS)
    # the three kinds of whole requests, and the part that counts, three times each
    assert counted == 12
    assert (
        sum(line.get("event.name") == "http.server.request" for line in lines) == 3 * 3 + 3 + 3
    )  # and two parts that write


def test_the_page_lists_the_parts_that_are_measured():
    """By shape, not by time: a part that comes or goes needs `python -m bench account`, and `pages`, again."""
    found = report.read("account")
    page = pages.PAGE.read_text()
    for name in pages.TABLES:
        assert f"<!-- bench:{name} -->" in page
        assert f"<!-- /bench:{name} -->" in page
    if found is not None:
        assert list(found["medians"]["us"]) == list(account.PARTS)
        assert all(f"| {name} | {what} |" in page for name, what in account.PARTS.items())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_committed_result_has_the_shape_that_the_code_reads(name):
    found = report.read(name)
    if found is None:
        pytest.skip("not measured yet")
    assert set(report.KEYS) == found.keys()
    assert not found["quick"]
    assert [row["name"] for row in found["rows"]] == [target.name for target in targets.of(name)]
    assert BENCHMARKS[name].tables(found) in pages.PAGE.read_text()


def test_growth_is_told_for_each_side():
    points = [{"x": x, "bare": 5.0, "ours": 2.0 * x} for x in (1.0, 2.0, 4.0) for _ in range(3)]
    curves = scale.curves(points)
    assert curves["ours"] == [(1.0, 2.0), (2.0, 4.0), (4.0, 8.0)]
    assert scale.slopes(curves) == {"bare": pytest.approx(0.0), "ours": pytest.approx(1.0)}


def test_pictures_are_drawn_of_what_is_there():
    curves = {"bare": [(1, 200.0), (1000, 210.0)], "ours": [(1, 220.0), (1000, 230.0)]}
    ratios = {"bare": {"median": 1.0}, "ours": {"median": 1.1}, "usual": {"median": 1.9}}
    drawn = pages.pictures(
        {
            "scale": {"medians": {"connections": curves}, "ratios": {"connections": {"ours": 0.01}}},
            "overhead": {"ratios": {"gevent": {"cpu_us": ratios}}},
        }
    )
    assert {path.name for path in drawn} == {"bench-scale-connections.svg", "bench-overhead.svg"}
    assert all(picture.startswith("<svg ") and picture.endswith("</svg>\n") for picture in drawn.values())


def test_a_curve_s_scale_covers_all_of_it():
    step, top = plots.scale(431.0)
    assert top >= 431.0
    assert top / step == round(top / step)


def test_a_process_s_cpu_time_grows():
    before, deadline = cpu_seconds(os.getpid()), time.monotonic() + 10
    while cpu_seconds(os.getpid()) <= before:  # the kernel accounts for what runs at its own pace
        assert time.monotonic() < deadline
        sum(range(200_000))
    assert cpu_seconds(2**22 + 1) == 0.0
    assert 0 < free_port() < 65536


def test_an_environment_made_from_these_pins_is_not_made_again(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(peers, "VENVS", tmp_path / "venvs")

    def uv(*arguments: str) -> None:
        commands.append(arguments[0])
        (tmp_path / "venvs/structlog").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(peers, "_uv", uv)
    assert peers.python("structlog") == peers.python("structlog") == tmp_path / "venvs/structlog/bin/python"
    assert commands == ["venv", "pip"]
    (tmp_path / "venvs/structlog/.made").write_text("of other pins")
    peers.python("structlog")
    assert commands == ["venv", "pip", "venv", "pip"]


def test_quick_results_are_kept_apart():
    assert all(not path.name.endswith(".quick.json") for path in _committed())


def _committed() -> list[Path]:
    ignored = (report.RESULTS / ".gitignore").read_text().split()
    assert ignored == ["*.quick.json"]
    return [path for path in report.RESULTS.glob("*.json") if not path.match("*.quick.json")]
