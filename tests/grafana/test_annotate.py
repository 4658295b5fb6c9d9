"""`grafana annotate`: what a real Prometheus has recorded stands in Grafana, each thing once, whatever happens."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.grafana.command import PYTHON, Annotator, Command, environ
from tests.grafana.exporter import Exporter, scraped
from tests.prometheus import Prometheus
from tests.server import ROOT, end, free_port, wait_until

RELOADS = "gunicorn_reloads_total"
DEATHS = {
    cause: f'gunicorn_worker_exits_total{{cause="{cause}"}}' for cause in ("timeout", "killed", "recycled", "reloaded")
}
SECONDS = 30


@pytest.fixture
def app():
    with Exporter() as running:
        running.values = {RELOADS: 0, **dict.fromkeys(DEATHS.values(), 0)}
        yield running


@pytest.fixture
def prometheus(app, tmp_path):
    directory = tmp_path / "prometheus"
    directory.mkdir()
    with Prometheus(directory, config=scraped(("app", app.target))) as running:
        wait_until(lambda: running.number("count(gunicorn_reloads_total)") == 1, what="a scrape")
        yield running


@pytest.fixture
def annotator(grafana, prometheus, tmp_path):
    """Return a function that starts an annotator and waits until it looks; all end with the test."""
    with ExitStack() as running:

        def start(name="annotator", url=grafana.url, **settings):
            made = running.enter_context(Annotator(tmp_path / name, url, PROMETHEUS_URL=prometheus.url, **settings))
            wait_until(lambda: made.state().get("looked_until"), SECONDS, f"an annotator: {made.log()}")
            return made

        yield start


def texts(grafana, kind):
    return [each["text"] for each in grafana.annotations if kind in each["tags"]]


def numbers(grafana, kind):
    """Add up what the annotations of a kind say."""
    return sum(int(text.split()[0]) for text in texts(grafana, kind))


def happens(prometheus, app, name, more=1):
    """Have something happen once the number before it was scraped."""
    before = app.values[name]
    wait_until(lambda: prometheus.number(name) == before, what=f"{name} to be scraped")
    app.add(name, more)
    wait_until(lambda: prometheus.number(name) == before + more, what=f"{name} to be scraped")


def waiting(annotator):
    return annotator.state().get("pending", [])


def test_reloads_deaths_deploys_and_decisions(grafana, prometheus, app, annotator):
    version = 'target_info{service_version="%s",deployment_environment_name="production"}'
    canary = 'target_info{service_version="1.1",deployment_environment_name="canary"}'
    decision = 'tuner_decisions_total{server="a:9101",action="add_worker",reason="queue",outcome="applied"}'
    app.set(**{version % "1.0": 1, canary: 1})
    wait_until(lambda: prometheus.number("count(target_info)") == 2, what="a scrape")
    seen = time.time()
    running = annotator()
    wait_until(lambda: running.state()["looked_until"] > seen, SECONDS, "the window in which the job is new to be over")
    for name, more in ((RELOADS, 1), (DEATHS["timeout"], 3), (DEATHS["recycled"], 5)):
        happens(prometheus, app, name, more)
    app.set(**{decision: 1})  # there is no such counter before the first
    del app.values[version % "1.0"]
    app.set(**{version % "1.1": 1})
    wait_until(
        lambda: len({kind for each in grafana.annotations for kind in each["tags"]} - {"sightline"}) >= 6, SECONDS
    )
    assert texts(grafana, "reload") == [f"1 reload: {app.target} 1"]
    assert texts(grafana, "worker-death") == [f"3 workers died: timeout 3; on {app.target} 3"]
    assert texts(grafana, "deploy") == ["Deploy of 1.1 to production, after 1.0"]
    assert texts(grafana, "tuner") == ["1 decision of the tuner: add_worker for queue at a:9101: applied 1"]
    for each in grafana.annotations:
        assert {"sightline", "job:app"} < set(each["tags"])
        assert each["dashboardUID"] == ""
        assert abs(each["timeEnd"] / 1000 - time.time()) < 60
        assert each["time"] < each["timeEnd"], "a region"


def test_first_counts_that_are_too_many_to_be_asked_for_are_left_out_and_logged(grafana, app, tmp_path):
    config = scraped(("app", app.target))
    config["scrape_configs"][0]["honor_labels"] = True
    app.values = {}
    with (
        Prometheus(tmp_path, config=config) as prometheus,
        Annotator(tmp_path / "annotator", grafana.url, PROMETHEUS_URL=prometheus.url) as running,
    ):
        wait_until(lambda: running.state().get("looked_until"), SECONDS, "an annotator")
        app.values = {f'{RELOADS}{{instance="a:{number}"}}': 1.0 for number in range(1020)}
        wait_until(lambda: "counters that begin are left out" in running.log(), SECONDS, "it to be logged")
        assert '"targets":20' in running.log()


def test_a_real_server_that_is_reloaded_and_loses_a_worker(grafana, serve, tmp_path):
    server = serve(WEB_CONCURRENCY=2)
    directory = tmp_path / "prometheus"
    directory.mkdir()
    with Prometheus(directory, server.agent_url.removeprefix("http://")) as prometheus:
        wait_until(lambda: prometheus.query("gunicorn_worker_exits_total"), 30, "a scrape")
        with Annotator(tmp_path / "annotator", grafana.url, PROMETHEUS_URL=prometheus.url) as running:
            wait_until(lambda: running.state().get("looked_until"), SECONDS, "the annotator")
            os.kill(server.worker_pids()[0], signal.SIGKILL)
            wait_until(lambda: texts(grafana, "worker-death"), SECONDS, f"an annotation: {running.log()}")
            server.signal(signal.SIGHUP)
            wait_until(lambda: texts(grafana, "reload"), SECONDS, f"an annotation: {running.log()}")
    instance = server.agent_url.removeprefix("http://")
    assert texts(grafana, "worker-death") == [f"1 worker died: killed 1; on {instance} 1"]
    assert texts(grafana, "reload") == [f"1 reload: {instance} 1"]


def test_what_happens_during_an_outage_of_grafana_comes_afterwards_once(grafana, prometheus, app, annotator):
    running = annotator()
    grafana.stop()
    happens(prometheus, app, RELOADS)
    happens(prometheus, app, DEATHS["killed"], 2)
    wait_until(
        lambda: {each["kind"] for each in waiting(running)} == {"reload", "worker-death"}, SECONDS, "both to wait"
    )
    assert grafana.annotations == []
    grafana.start()
    wait_until(lambda: not waiting(running), SECONDS, "both to be sent")
    assert (numbers(grafana, "reload"), numbers(grafana, "worker-death")) == (1, 2)
    bodies = [json.loads(line)["body"] for line in running.log().splitlines()]
    down = f"No Grafana at {grafana.url}: connection refused"
    assert bodies.count(down) == 1, "said once, not every time"
    assert bodies[-1] == "grafana is well again"


def test_it_begins_also_while_grafana_is_away(grafana, prometheus, app, annotator):
    grafana.stop()
    running = annotator()
    happens(prometheus, app, RELOADS)
    wait_until(lambda: waiting(running), SECONDS)
    grafana.start()
    wait_until(lambda: texts(grafana, "reload"), SECONDS)


def test_an_outage_of_prometheus_loses_nothing_that_it_recorded(grafana, prometheus, app, annotator):
    running = annotator()
    prometheus.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "No answer from Prometheus" in running.log(), SECONDS, "it to be noticed")
        app.add(RELOADS)
    finally:
        prometheus.process.send_signal(signal.SIGCONT)
    wait_until(lambda: numbers(grafana, "reload") == 1, SECONDS, "the reload")
    assert "prometheus is well again" in running.log()


def test_it_ends_when_asked_and_goes_on_where_it_stopped(grafana, prometheus, app, annotator):
    running = annotator()
    running.process.terminate()
    assert running.process.wait(10) == 0
    happens(prometheus, app, RELOADS)
    assert grafana.annotations == []
    running.start()
    wait_until(lambda: texts(grafana, "reload"), SECONDS)


def test_a_longer_window_makes_no_second_annotation_of_what_was_looked_at(grafana, prometheus, app, annotator):
    running = annotator()
    happens(prometheus, app, RELOADS)
    wait_until(lambda: texts(grafana, "reload") and not waiting(running), SECONDS)
    running.process.terminate()
    assert running.process.wait(10) == 0
    before = running.state()["looked_until"]
    running.environ["GRAFANA_ANNOTATION_WINDOW"] = "12"  # which began before the reload, unless chance has it otherwise
    running.start()
    wait_until(lambda: running.state()["looked_until"] >= before + 12, SECONDS, "two windows")
    happens(prometheus, app, RELOADS)
    wait_until(lambda: numbers(grafana, "reload") == 2, SECONDS, "the next reload")
    assert len(texts(grafana, "reload")) == 2


@pytest.mark.parametrize("moment", ["before it is made", "after it was made"])
def test_killed_in_the_middle_it_annotates_once(grafana, prometheus, app, annotator, moment):
    """Killed with SIGKILL while Grafana works on its request: who was killed cannot know what became of it."""
    running = annotator()
    if moment == "before it is made":
        grafana.before("/api/annotations", "POST", running.kill)
    else:
        # the request that follows the one that makes the annotation
        grafana.before("/api/annotations", "POST", lambda: grafana.before("/api/annotations", "GET", running.kill))
    happens(prometheus, app, RELOADS)
    wait_until(lambda: running.process.poll() is not None, SECONDS, "the kill")
    assert running.process.returncode == -signal.SIGKILL
    assert len(waiting(running)) == 1, "it was kept before it was sent"
    running.start()
    wait_until(lambda: not waiting(running), SECONDS, "it to be done")
    assert texts(grafana, "reload") == [f"1 reload: {app.target} 1"]


def test_an_answer_that_never_came_makes_no_second_annotation(grafana, prometheus, app, annotator):
    """Grafana has made it, and fails before it says so."""
    grafana.before("/api/annotations", "POST", lambda: grafana.answer(502, "bad gateway", "/api/annotations", "GET", 3))
    running = annotator()
    happens(prometheus, app, RELOADS)
    wait_until(lambda: texts(grafana, "reload") and not waiting(running), SECONDS)
    assert len(texts(grafana, "reload")) == 1


def test_a_flood_of_events_is_a_few_annotations_with_all_numbers(grafana, prometheus, app, annotator):
    running = annotator()
    begun = time.time()
    for _ in range(40):
        app.add(DEATHS["timeout"], 25)
        time.sleep(0.1)
    wait_until(lambda: numbers(grafana, "worker-death") == 1000, SECONDS, "all of them")
    windows = (time.time() - begun) / 2 + 2
    assert len(texts(grafana, "worker-death")) <= windows
    wait_until(lambda: not waiting(running), SECONDS, "it to have noted that")


def test_a_full_spool_drops_the_oldest_and_says_so(grafana, prometheus, app, annotator):
    running = annotator(GRAFANA_SPOOL_MOST=2)
    grafana.stop()
    seen = set()
    for count in range(1, 5):
        happens(prometheus, app, RELOADS)
        wait_until(
            lambda count=count: len(waiting(running)) + running.state()["dropped"] == count, SECONDS, "it to wait"
        )
        seen |= {each["end"] for each in waiting(running)}
    assert running.state()["dropped"] == 2
    assert len(seen) == 4
    assert "annotations dropped, the oldest" in running.log()
    grafana.start()
    wait_until(lambda: not waiting(running), SECONDS)
    assert sorted(each["timeEnd"] for each in grafana.annotations) == sorted(seen)[-2:]


def test_one_that_grafana_will_never_take_does_not_hold_up_the_rest(grafana, prometheus, app, annotator):
    running = annotator()
    grafana.answer(400, {"message": "Failed to save annotation"}, "/api/annotations", "POST", 1)
    happens(prometheus, app, RELOADS)
    wait_until(lambda: running.state()["dropped"] == 1, SECONDS)
    happens(prometheus, app, RELOADS)
    wait_until(lambda: texts(grafana, "reload"), SECONDS)
    assert "Grafana refuses to annotate, with 400: Failed to save annotation" in running.log()


def test_a_right_that_is_taken_away_for_a_while_loses_nothing(grafana, prometheus, app, annotator):
    running = annotator()
    grafana.rights.discard("annotations:create")
    happens(prometheus, app, RELOADS)
    wait_until(lambda: "has no right to annotate" in running.log(), SECONDS)
    grafana.rights.add("annotations:create")
    wait_until(lambda: texts(grafana, "reload"), SECONDS)


def test_two_annotators_with_spools_of_their_own_make_each_annotation_once(grafana, prometheus, app, annotator):
    """Both look whether it is there, then both make it: the later one takes its own away."""
    both = [annotator(name) for name in ("one", "two")]
    for _ in range(4):
        happens(prometheus, app, RELOADS)
        done = app.values[RELOADS]
        wait_until(lambda done=done: numbers(grafana, "reload") == done, SECONDS, "each once")
    over = time.time() + 1
    wait_until(lambda: all(each.state()["looked_until"] + 3 > over and not waiting(each) for each in both), SECONDS)
    assert numbers(grafana, "reload") == 4
    assert all(each.process.poll() is None for each in both)


def test_of_two_that_were_made_at_the_same_time_the_later_one_goes(grafana, prometheus, app, annotator):
    """Another annotator's appears between our look and our own."""

    def another():
        (each,) = waiting(running)
        made = {"id": 0, "text": each["text"], "time": each["start"], "timeEnd": each["end"], "tags": each["tags"]}
        grafana.annotations.append(made | {"dashboardUID": ""})

    running = annotator()
    grafana.before("/api/annotations", "POST", another)
    happens(prometheus, app, RELOADS)
    wait_until(lambda: not waiting(running) and grafana.annotations, SECONDS)
    assert [each["id"] for each in grafana.annotations] == [0]


def test_a_second_annotator_with_the_same_spool_is_refused(grafana, annotator, prometheus):
    running = annotator()
    second = Command(grafana.url, GRAFANA_SPOOL=running.spool, PROMETHEUS_URL=prometheus.url)("annotate")
    assert second.returncode == 2
    assert second.stderr == f"Another annotator works in {running.spool}: end it, or set GRAFANA_SPOOL\n"
    assert running.process.poll() is None


def test_hostile_labels_are_harmless_and_still_found_once(grafana, prometheus, app, annotator, tmp_path):
    evil = 'gunicorn_worker_exits_total{cause="<img src=x onerror=alert(1)>%s"}' % ("x" * 300)
    running = annotator()
    happens(prometheus, app, RELOADS, 0)
    app.set(**{evil: 1})
    wait_until(lambda: texts(grafana, "worker-death") and not waiting(running), SECONDS)
    (made,) = grafana.annotations
    assert "<" not in made["text"]
    assert "&lt;img" in made["text"]
    # ... and is found again, though its spool is gone
    running.kill()
    state = json.loads((running.spool / "annotator.json").read_text())
    state["looked_until"] -= 20
    (running.spool / "annotator.json").write_text(json.dumps(state))
    running.start()
    wait_until(lambda: running.state()["looked_until"] > state["looked_until"] + 20 and not waiting(running), SECONDS)
    assert len(grafana.annotations) == 1


# The spool


def test_a_spool_that_cannot_be_written_is_one_line(grafana, run, tmp_path):
    (tmp_path / "file").touch()
    done = run("annotate", GRAFANA_SPOOL=tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr == f"GRAFANA_SPOOL: {tmp_path / 'file'} cannot be written to: File exists\n"


def test_a_spool_that_is_broken_is_begun_anew(grafana, prometheus, app, tmp_path):
    directory = tmp_path / "annotator"
    (directory / "spool").mkdir(parents=True)
    (directory / "spool/annotator.json").write_text('{"looked_until": ')
    with Annotator(directory, grafana.url, PROMETHEUS_URL=prometheus.url) as running:
        wait_until(lambda: "spool is unreadable, begins anew" in running.log(), SECONDS)
        wait_until(lambda: running.log_path.exists() and _looked(running), SECONDS)
        happens(prometheus, app, RELOADS)
        wait_until(lambda: texts(grafana, "reload"), SECONDS)


def test_a_spool_of_an_earlier_form_goes_on_and_marks_no_deploy(grafana, prometheus, app, tmp_path):
    """It has versions by job alone; what waits in it is sent, and what is deployed from then on is marked."""
    version = 'target_info{service_version="%s",deployment_environment_name="production"}'
    app.set(**{version % "2": 1})
    wait_until(lambda: prometheus.number("count(target_info)") == 1, what="a scrape")
    begun = time.time()
    waits = {"kind": "reload", "window": 1000, "window_end": 2000, "start": 1000, "end": 2000, "text": "1 reload: a 1"}
    earlier = {"looked_until": begun - 60, "versions": {"app": {"1": begun - 60}}, "dropped": 0}
    (tmp_path / "annotator/spool").mkdir(parents=True)
    state = json.dumps(earlier | {"pending": [waits | {"tags": ["sightline", "reload", "job:app"]}]})
    (tmp_path / "annotator/spool/annotator.json").write_text(state)
    with Annotator(tmp_path / "annotator", grafana.url, PROMETHEUS_URL=prometheus.url) as running:
        wait_until(lambda: _looked(running) > begun and not waiting(running), SECONDS, f"all of it: {running.log()}")
        assert texts(grafana, "reload") == ["1 reload: a 1"]
        assert texts(grafana, "deploy") == []
        assert "unreadable" not in running.log()
        assert "versions" not in running.state()
        app.set(**{version % "3": 1})
        wait_until(lambda: texts(grafana, "deploy"), SECONDS, "the deploy")
    assert texts(grafana, "deploy") == ["Deploy of 3 to production, after 2"]


def test_a_stretch_with_too_much_in_it_is_asked_for_in_parts(grafana, tmp_path):
    """Ten minutes behind, and a Prometheus that has more of seven minutes and above than is taken."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seconds = int(re.search(r"%5B(\d+)s%5D", self.path)[1])
            asked.append(seconds)
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # whoever has had enough hangs up
                self.wfile.write(b'{"status":"success","data":{"resultType":"matrix","result":[')
                self.wfile.write(b" " * (9 * 2**20 if seconds > 420 else 1) + b"]}}")

        def log_message(self, *_):
            """Print nothing."""

    behind = time.time() - 600
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as much, ExitStack() as around:
        threading.Thread(target=much.serve_forever, daemon=True).start()
        around.callback(much.shutdown)
        (tmp_path / "annotator/spool").mkdir(parents=True)
        (tmp_path / "annotator/spool/annotator.json").write_text(json.dumps({"looked_until": behind}))
        url = f"http://127.0.0.1:{much.server_port}"
        running = around.enter_context(Annotator(tmp_path / "annotator", grafana.url, PROMETHEUS_URL=url))
        wait_until(lambda: _looked(running) > time.time() - 60, SECONDS, f"all of it: {running.log()}")
        assert max(asked) > 420 > min(asked)
        assert "skip" not in running.log()


def _looked(running):
    try:
        return running.state().get("looked_until")
    except ValueError:
        return None


def test_no_space_for_a_moment_is_said_and_gone(grafana, prometheus, app, annotator):
    running = annotator()
    (running.spool / "annotator.json.draft").symlink_to("/dev/full")  # full(4): it has no space for anything
    happens(prometheus, app, RELOADS)
    wait_until(lambda: "cannot be written: No space left on device" in running.log(), SECONDS)
    wait_until(lambda: texts(grafana, "reload") and not waiting(running), SECONDS)
    wait_until(lambda: "spool is well again" in running.log(), SECONDS)


def can_mount():
    return (
        subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True, check=False).returncode
        == 0
    )


@pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount a file system of their own")
def test_a_disk_that_stays_full_stops_nothing(grafana, prometheus, app, tmp_path):
    """A file system of few kilobytes, of this process's own (mount_namespaces(7)), filled to the brim."""
    spool = tmp_path / "disk"
    spool.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {spool} && (head -c 1M /dev/zero > {spool}/filler || true) 2>/dev/null;"
        f" touch {spool}/annotator.json.draft {spool}/lock; exec {PYTHON} -m observability grafana annotate"
    )
    quick = {"GRAFANA_ANNOTATION_WINDOW": 2, "GRAFANA_ANNOTATION_DELAY": 1.5, "GRAFANA_ANNOTATION_INTERVAL": 0.2}
    env = environ(grafana.url, **quick, GRAFANA_SPOOL=spool, PROMETHEUS_URL=prometheus.url)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", script], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        wait_until(
            lambda: b"No space left on device" in (tmp_path / "log").read_bytes(), SECONDS, "the disk to be full"
        )
        assert process.poll() is None, (tmp_path / "log").read_text()
        happens(prometheus, app, RELOADS)
        wait_until(lambda: texts(grafana, "reload"), SECONDS, (tmp_path / "log").read_text())
    finally:
        end(process)


# The beginning


@pytest.mark.parametrize(
    ("status", "body", "path", "said"),
    [
        (401, {"message": "Invalid API key"}, "/api/annotations", "refuses the token"),
        (
            403,
            {"message": "Permissions needed: annotations:read"},
            "/api/annotations",
            "has no right to read annotations",
        ),
        (200, "<html>", "/api/health", "is not Grafana"),
        (200, {"database": "ok", "version": "9.0.0"}, "/api/health", "11.0 is the least"),
    ],
)
def test_what_will_not_get_better_by_itself_ends_it(grafana, run, tmp_path, status, body, path, said):
    grafana.answer(status, body, path)
    done = run("annotate", GRAFANA_SPOOL=tmp_path / "spool", PROMETHEUS_URL=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_its_log_is_json_without_the_token(annotator):
    running = annotator()
    lines = [json.loads(line) for line in running.log().splitlines()]
    assert Counter(line["body"] for line in lines) == {"annotator begins": 1}
    assert lines[0]["grafana"].startswith("http://127.0.0.1:")
    assert not re.search("glsa_", running.log())
