"""No page, rule or dashboard names a metric, a label, a setting or a file that does not exist."""

import pytest

from tests.docs import names
from tests.server import ROOT

EXISTS = names.known()


def short(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*names.pages(), *names.machine_read()], ids=short)
def test_a_file_names_only_what_exists(path):
    assert [each for text in names.texts(path) for each in names.unknown(text, EXISTS)] == []


@pytest.mark.parametrize("path", names.pages(), ids=short)
def test_a_page_names_only_files_that_exist(path):
    named = [name for name in names.FILE.findall(path.read_text()) if "NAME" not in name]  # a place holder
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_all_kinds_of_files_are_looked_at():
    found = {short(path) for path in [*names.pages(), *names.machine_read()]}
    assert {
        "README.md",
        "docs/operations.md",
        "runbooks/TargetDown.md",
        "dashboards/service.json",
        "monitoring/prometheus/rules/platform.yml",
    } <= found
    assert "gunicorn_workers" in EXISTS.series
    assert "cache_requests_total" in EXISTS.series
    assert {"OBSERVABILITY_DIR", "WEB_CONCURRENCY", "REDIS_URL", "APP_PORT"} <= EXISTS.variables


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("sum(rate(gunicorn_worker_requests_total[5m]))", []),
        ("sum(rate(gunicorn_worker_request_total[5m]))", ["metric gunicorn_worker_request_total"]),
        ("`http_server_request_duration_seconds` has buckets", []),
        ("http_server_request_duration_seconds_buckets", ["metric http_server_request_duration_seconds_buckets"]),
        ("observability_scrape_seconds_count", ["metric observability_scrape_seconds_count"]),
        ('gunicorn_workers{state="live",job="x"}', []),
        ('gunicorn_workers{worker="1"}', ["label worker of gunicorn_workers"]),
        ('gunicorn_worker_info{worker=~"1|2"}', []),
        (
            'http_server_request_duration_seconds_count{le="1"}',
            ["label le of http_server_request_duration_seconds_count"],
        ),
        ("sum by (worker, http_route) (up)", []),
        ("sum by (pid) (up)", ["label pid"]),
        ("worker {{worker}} of {{ $labels.instance }}", []),
        ("{{ $labels.pid }}", ["label pid"]),
        ("set `OBSERVABILITY_DIR`, or make up APP_PORT=8001 MODE=native", []),
        ("set `OBSERVABILITY_DIRECTORY`", ["variable OBSERVABILITY_DIRECTORY"]),
        ("make up PORT=8001", ["variable PORT"]),
        ("`observability/gunicorn_log.py` and http_route", []),
        ("job:http_server_requests:rate5m and job_route:http_server_requests:rate5m", []),
        ('{__name__=~"job_route:http_server_errors:.*"}', []),
        ("job:http_server_requests:rate", ["recorded job:http_server_requests:rate"]),
        ('{__name__=~"job:http_server_request:.+"}', ["recorded job:http_server_request:.+"]),
    ],
)
def test_what_does_not_exist_is_seen(text, problems):
    assert list(names.unknown(text, EXISTS)) == problems
