"""The tuner as it runs: with a real gunicorn, Prometheus with the shipped rules, and Alertmanager with the routes.

Each story has servers of its own, and waits most of its time: all are told at once, and each test waits for its own.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from scripts import demo_tuning
from scripts.options import Options
from scripts.problem import Problem
from tests.server import ROOT, free_port, wait_until
from tests.tuning.parts import PATIENT, WINDOW, Load, Stack, Tuner, notification

pytestmark = pytest.mark.alone

Story = Callable[[Path], None]


def an_alert_adds_a_worker_and_the_step_is_judged_also_over_a_restart(directory: Path) -> None:
    with Stack(directory) as stack, stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        assert tuner.decisions() == []
        with Load(f"{stack.server.url}/sleep/0.1") as load:
            (decided,) = wait_until(lambda: tuner.decisions("decision", "applied"), PATIENT, "a worker more")
            tuner.kill()  # in the middle of a step
            assert stack.changes() == [(2, 3)]
            tuner.start()
            (judged,) = wait_until(lambda: tuner.decisions("outcome"), PATIENT, "its judgement")
            tuner.stop_file.touch()
        assert load.failed == []
        assert load.answered > 100
    assert tuner.lines("woken by alerts"), "the poll would have taken an hour"
    assert (decided["action"], decided["before"], decided["workers"]) == ("add_worker", 2, 3)
    assert decided["rule"] == judged["rule"]
    assert any(advice["variable"] == "GUNICORN_WORKER_CLASS" for advice in decided["advice"]), decided
    assert judged["outcome"] == "kept", judged
    assert judged["id"] > decided["id"]
    assert len(tuner.lines(event="tuner.outcome")) == 1
    (line,) = [each for each in tuner.lines(event="tuner.decision") if each["outcome"] == "applied"]
    assert line["signals.workers_target"] == 2
    assert line["signals.queue_p95"] > 0.05
    history = subprocess.run(
        [sys.executable, "-m", "observability", "tuner", "history", "--directory", tuner.env["TUNER_DIR"]],
        cwd=ROOT, env=tuner.env, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "2 -> 3  kept" in history
    assert f"127.0.0.1:{stack.server.agent_port}" in history


def what_gains_nothing_is_undone_and_not_tried_again(directory: Path) -> None:
    with Stack(directory, app="tests.tuning.one_lock_app:create_app()") as stack, stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        with Load(stack.server.url) as load:
            (judged,) = wait_until(lambda: tuner.decisions("outcome"), PATIENT, "a judgement")
            assert (judged["outcome"], judged["workers"]) == ("undone", 2), judged
            assert stack.changes() == [(2, 3), (3, 2)]
            wait_until(lambda: tuner.metrics().sum("tuner_ceiling_workers") == 2, 60, "what was learned")
            assert stack.target() == 2
            assert tuner.post(notification("once more")) == 202
            wait_until(lambda: _frozen(tuner) == {"limit"}, PATIENT, "the end of the cool-down, and the ceiling")
            _looks(tuner)
        assert stack.changes() == [(2, 3), (3, 2)]
        assert load.failed == []
    assert [line["outcome"] for line in tuner.lines(event="tuner.outcome")] == ["undone"]


def _frozen(tuner: Tuner) -> set[str]:
    return {sample.labels["reason"] for sample in tuner.metrics().select("tuner_frozen") if sample.value}


def _looks(tuner: Tuner, times: int = 3) -> None:
    """Wait until the tuner has looked some times more."""
    for _ in range(times):
        before = _looked(tuner)
        wait_until(partial(_later, tuner, before), 60, "another look")


def _looked(tuner: Tuner) -> float:
    return tuner.metrics().sum("tuner_last_evaluation_timestamp_seconds")


def _later(tuner: Tuner, before: float) -> bool:
    return _looked(tuner) > before


def hostile_notifications_do_nothing(directory: Path) -> None:
    with Stack(directory, alertmanager=False) as stack, stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        assert tuner.post(notification("a"), token="") == 401
        assert tuner.post(notification("a"), token="guessed") == 401
        assert tuner.post(b"{") == 400
        assert tuner.post({**notification("a"), "version": 4}) == 400
        assert tuner.post(b"x" * 2_000_000) == 413
        before = tuner.webhooks("accepted")
        assert [tuner.post(notification("doubled")) for _ in range(3)] == [202] * 3
        assert (tuner.webhooks("accepted"), tuner.webhooks("repeated")) == (before + 1, 2)
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda number: tuner.post(notification(str(number))), range(400)))
        assert set(statuses) <= {202, 503}
        assert tuner.webhooks("accepted") + tuner.webhooks("dropped") == before + 401
        assert tuner.get("/livez").ok
        assert stack.changes() == []
        for refused in ("the token is wrong, or missing", "Input data was truncated"):
            assert len([line for line in tuner.lines("a notification is refused") if line["reason"] == refused]) <= 1
    assert tuner.process.returncode == 0


def the_stop_file_holds_at_once_and_nothing_is_taken_back(directory: Path) -> None:
    with Stack(directory) as stack, stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        with Load(f"{stack.server.url}/sleep/0.1"):
            wait_until(lambda: tuner.decisions("decision", "applied"), PATIENT, "a worker more")
            tuner.stop_file.touch()
            wait_until(lambda: tuner.metrics().sum("tuner_mode", mode="off") == 1, 5, "the kill switch")
            (judged,) = wait_until(lambda: tuner.decisions("outcome"), 5, "word of the step")
            assert judged["outcome"] == "inconclusive"
            assert "switched off before it could be judged" in judged["reason"]
            time.sleep(WINDOW + 5)  # nothing is to happen in it: a window, and the cool-down
            assert stack.changes() == [(2, 3)]
            assert stack.target() == 3
            tuner.stop_file.unlink()
            wait_until(lambda: tuner.metrics().sum("tuner_mode", mode="apply") == 1, 5, "the end of it")


def without_prometheus_or_agent_nothing_is_done_and_one_line_says_so(directory: Path) -> None:
    with (
        Stack(directory) as stack,
        stack.tuner("tuner", TUNER_POLL_SECONDS=1) as tuner,
        Load(f"{stack.server.url}/sleep/0.1"),
    ):
        tuner.wait_fresh()
        stack.agent().send_signal(signal.SIGSTOP)
        wait_until(lambda: tuner.metrics().sum("tuner_frozen", reason="stale") == 1, 60, "stale signals")
        made = tuner.metrics().sum("tuner_decisions_total")
        time.sleep(5)  # nothing is to happen in it
        assert tuner.metrics().sum("tuner_decisions_total") == made
        _agent_again(stack)
        wait_until(lambda: tuner.metrics().sum("tuner_frozen", reason="stale") == 0, 60, "fresh signals")
        stack.prometheus.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: tuner.metrics().sum("tuner_failures_total", part="prometheus") > 1, 60, "failures")
        made = tuner.metrics().sum("tuner_decisions_total")
        assert len(tuner.lines("the tuner's prometheus fails")) == 1
        assert tuner.get("/livez").ok
        assert tuner.metrics().sum("tuner_decisions_total") == made
        stack.prometheus.process.send_signal(signal.SIGCONT)
        wait_until(lambda: tuner.lines("the tuner's prometheus is well again"), 60, "Prometheus")
    assert len(tuner.lines("no decision without fresh signals")) <= 2


def _agent_again(stack: Stack) -> None:
    for child in psutil.Process(stack.server.pid).children():
        if child.status() == psutil.STATUS_STOPPED:
            child.send_signal(signal.SIGCONT)


def of_two_tuners_in_one_directory_one_stands_by_and_takes_over(directory: Path) -> None:
    with Stack(directory, alertmanager=False) as stack:
        first = stack.tuner("tuner")
        second = Tuner(first.directory, free_port(), "second", **{**first.env, "TUNER_PORT": ""})
        second.env["TUNER_PORT"] = str(second.port)
        with first, second:
            wait_until(lambda: second.lines("another tuner is active"), 20, "the second to stand by")
            assert second.get("/livez").ok
            assert second.get("/readyz").status_code == 503
            assert second.post(notification("a")) == 503, "Alertmanager sends it again"
            first.kill()
            wait_until(lambda: second.get("/readyz").ok, 60, "the second to take over")
            assert len(second.lines("another tuner is active")) == 1
            assert second.post(notification("a")) == 202


def a_lost_webhook_costs_a_poll_and_no_prometheus_is_needed(directory: Path) -> None:
    """The agent is watched instead, and the tuner only recommends."""
    env: dict[str, object] = {"TUNER_PROMETHEUS_URL": "", "TUNER_WEBHOOK_TOKEN_FILE": ""}
    env |= {"TUNER_MODE": "recommend", "TUNER_POLL_SECONDS": "2"}
    with Stack(directory, alertmanager=False) as stack:
        tuner = stack.tuner("tuner", **env, TUNER_AGENT_URL=stack.server.agent_url)
        with tuner, Load(f"{stack.server.url}/sleep/0.1"):
            assert tuner.post(notification("a")) == 404
            found = wait_until(lambda: tuner.decisions("decision", "recommended"), PATIENT, "a recommendation")
            wait_until(lambda: _threads(tuner), PATIENT, "advice")
            assert found[-1]["mode"] == "recommend"
        assert stack.changes() == []


def _threads(tuner: Tuner) -> bool:
    advice = [each["variable"] for entry in tuner.decisions("decision") for each in entry["advice"]]
    return "GUNICORN_THREADS" in advice


def beside_kubernetes_it_only_advises(directory: Path) -> None:
    with Stack(directory, alertmanager=False) as stack:
        tuner = stack.tuner("tuner", KUBERNETES_SERVICE_HOST="10.0.0.1", TUNER_POLL_SECONDS=1)
        with tuner, Load(f"{stack.server.url}/sleep/0.1"):
            wait_until(lambda: tuner.decisions("decision", "recommended"), PATIENT, "a recommendation")
            assert len(tuner.lines("beside Kubernetes the tuner advises on settings within a replica")) == 1
            assert tuner.metrics().sum("tuner_mode", mode="recommend") == 1
            assert all(each["variable"] != "REPLICAS" for entry in tuner.decisions() for each in entry["advice"])
        assert stack.changes() == []


def the_demo_tells_what_appears_where(directory: Path) -> None:
    said: list[str] = []
    with Stack(directory, app="app:create_app()", env={"FAULTS_ENABLED": 1}) as stack:
        options = Options(
            app_port=stack.server.port,
            agent_port=stack.server.agent_port,
            prometheus_port=stack.prometheus.port,
            alertmanager_port=stack.alertmanager.port,
            tuner_port=stack.tuner_port,
            mode="native",
        )
        with pytest.raises(Problem, match="FAULTS_ENABLED=1 make up"):
            demo_tuning.Demo(replace(options, app_port=free_port()), said.append).run()
        assert said == []
        with stack.tuner("tuner", TUNER_MODE="recommend") as tuner:
            tuner.wait_fresh()
            demo_tuning.Demo(options, said.append).run()
        assert stack.changes() == []
    text = "\n".join(said)
    for part in (" fires: http", "The tuner decides (io_wait)", "it advises GUNICORN_THREADS=", "changes nothing"):
        assert part in text
    assert f"{tuner.url}/decisions" in text
    assert "requests answered, 0 not" in text
    assert "The alerts are over" in text


STORIES: tuple[Story, ...] = (
    the_demo_tells_what_appears_where,
    an_alert_adds_a_worker_and_the_step_is_judged_also_over_a_restart,
    what_gains_nothing_is_undone_and_not_tried_again,
    hostile_notifications_do_nothing,
    the_stop_file_holds_at_once_and_nothing_is_taken_back,
    without_prometheus_or_agent_nothing_is_done_and_one_line_says_so,
    of_two_tuners_in_one_directory_one_stands_by_and_takes_over,
    a_lost_webhook_costs_a_poll_and_no_prometheus_is_needed,
    beside_kubernetes_it_only_advises,
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Story, Future[None]]]:
    with ThreadPoolExecutor(len(STORIES)) as pool:
        yield {each: pool.submit(each, tmp_path_factory.mktemp("story")) for each in STORIES}


@pytest.mark.parametrize("story", STORIES, ids=lambda each: each.__name__)
def test_what_the_tuner_does(told: dict[Story, Future[None]], story: Story) -> None:
    told[story].result()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TUNER_MODE": "apply"}, "TUNER_MODE is 'apply', but TUNER_CONTROL_TOKEN_FILE is unset"),
        ({"TUNER_PORT": "0"}, "TUNER_PORT is '0', but takes a whole number from 1 to 65535"),
        ({"OBSERVABILITY_LOG_LEVEL": "loud"}, "OBSERVABILITY_LOG_LEVEL is 'loud', but takes one of"),
    ],
)
def test_a_senseless_setting_is_one_line(tmp_path, env, said):
    tuner = Tuner(tmp_path, free_port(), **env)
    command = [sys.executable, "-m", "observability", "tuner", "serve"]
    done = subprocess.run(command, cwd=ROOT, env=tuner.env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with Tuner(tmp_path, free_port()) as tuner:
        command = [sys.executable, "-m", "observability", "tuner", "serve"]
        done = subprocess.run(command, cwd=ROOT, env=tuner.env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"TUNER_PORT is {tuner.port} on 127.0.0.1, which cannot be listened on: Address already in use\n"
    )
