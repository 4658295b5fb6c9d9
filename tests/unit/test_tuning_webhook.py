"""What Alertmanager sends: told from what it does not, taken once, and never in the way."""

import copy
import io

import msgspec
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from observability.tuning import webhook
from observability.tuning.memory import Memory
from observability.tuning.server import create_tuner_app
from observability.tuning.tally import Tally
from observability.tuning.voice import Voice
from observability.tuning.webhook import Inbox, MalformedError, Switch, Token, parse

BODY = {
    "version": "4",
    "groupKey": '{}/{tuner="true"}:{alertname="RequestsQueueing"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "tuner",
    "groupLabels": {"alertname": "RequestsQueueing"},
    "commonLabels": {"job": "sightline"},
    "commonAnnotations": {},
    "externalURL": "http://127.0.0.1:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "RequestsQueueing", "instance": "127.0.0.1:9101"},
            "annotations": {"summary": "x"},
            "startsAt": "2026-01-02T03:04:05.678901234Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://127.0.0.1:9090/graph",
            "fingerprint": "0123456789abcdef",
        }
    ],
}


def body(**changes):
    """Return the body with changes, of the first alert where a name has a dot."""
    made = copy.deepcopy(BODY)
    for name, value in changes.items():
        (made["alerts"][0] if name[:2] == "a_" else made)[name.removeprefix("a_")] = value
    return msgspec.json.encode(made)


class Tuner:
    """The web server with all that it stands on, but no loop."""

    def __init__(self, directory, token=True):
        self.path = directory / "token"
        self.path.write_text("secret\n")
        self.woken = 0
        self.now = 1000.0
        self.is_ready = (True, "well")
        self.tally = Tally()
        self.memory = Memory(directory, lambda reason: None)
        self.voice = Voice(self.memory, self.tally, 60.0)
        self.inbox = Inbox(self.memory, self._wake, lambda: self.now)
        self.client: FlaskClient = create_tuner_app(
            self.inbox,
            Token(self.path if token else None),
            self.memory,
            self.tally,
            self.voice,
            lambda: (True, "alive"),
            lambda: self.is_ready,
        ).test_client()

    def _wake(self):
        self.woken += 1

    def send(self, data=None, token="Bearer secret", **options):
        headers = {"Authorization": token} if token else {}
        return self.client.post("/alerts", data=body() if data is None else data, headers=headers, **options)

    def counted(self):
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == "tuner_webhooks_total"]
        return {sample.labels["result"]: sample.value for sample in samples if sample.value}


@pytest.fixture
def tuner(tmp_path):
    return Tuner(tmp_path)


def test_a_notification_is_taken_at_once_and_wakes_the_loop(tuner):
    answer = tuner.send()
    assert (answer.status_code, answer.text) == (202, "accepted\n")
    assert tuner.woken == 1
    (told,) = tuner.inbox.drain()
    assert (told.alert, told.servers, told.status) == ("RequestsQueueing", ("127.0.0.1:9101",), "firing")
    assert tuner.inbox.drain() == []
    assert tuner.counted() == {"accepted": 1}


def test_the_same_is_taken_once_also_over_a_restart(tuner, tmp_path):
    assert tuner.send().text == "accepted\n"
    assert tuner.send().text == "repeated\n"
    assert tuner.woken == 1
    tuner.memory.save()
    again = Tuner(tmp_path)
    again.memory.load()
    assert again.send().text == "repeated\n"
    assert again.counted() == {"repeated": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"a_startsAt": "2026-01-02T03:04:06Z"},
        {"groupKey": "another"},
        {"a_status": "resolved"},
        {"alerts": [*BODY["alerts"], BODY["alerts"][0] | {"startsAt": "2026-01-02T03:09:00Z"}]},
    ],
    ids=["fired again", "another group", "resolved", "one more in the group"],
)
def test_what_differs_in_its_group_its_start_or_its_end_is_news(tuner, changes):
    assert tuner.send().text == "accepted\n"
    assert tuner.send(body(**changes)).text == "accepted\n"


def test_what_does_not_tell_notifications_apart_is_no_news(tuner):
    assert tuner.send().text == "accepted\n"
    assert tuner.send(body(receiver="other", commonLabels={}, a_endsAt="2026-01-02T04:00:00Z")).text == "repeated\n"


def test_what_alertmanager_adds_is_no_matter(tuner):
    assert tuner.send(body(notificationReason="x", a_newField=[1])).status_code == 202


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "truncated"),
        (b"hello", "malformed"),
        (b"[]", "Expected `object`"),
        (b"\xff\xfe", ""),
        (body(version="3"), "$.version"),
        (body(groupKey=7), "$.groupKey"),
        (body(status="on"), "$.status"),
        (body(alerts={}), "$.alerts"),
        (body(alerts=[]), "$.alerts"),
        (body(commonLabels={"a": 1}), "$.commonLabels"),
        (body(a_startsAt="yesterday"), "$.alerts[0].startsAt"),
        (body(a_startsAt="2026-01-02T03:04:05"), "$.alerts[0].startsAt"),
        (body(a_labels=None), "$.alerts[0].labels"),
        (msgspec.json.encode({name: value for name, value in BODY.items() if name != "groupKey"}), "groupKey"),
        (b'{"alerts":' + b"[" * 100_000, ""),
    ],
)
def test_what_is_no_notification_is_refused_with_the_place(tuner, data, where):
    answer = tuner.send(data)
    assert answer.status_code == 400
    assert where in answer.text
    assert len(answer.text.splitlines()) == 1
    assert (tuner.woken, tuner.counted()) == (0, {"malformed": 1})


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(msgspec.json.encode))
def test_no_bytes_do_anything_but_be_refused(data):
    with pytest.raises(MalformedError):
        parse(data)


@pytest.mark.parametrize(
    "token", ["", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "Bearer sécret"]
)
def test_without_the_token_nothing_is_read(tuner, token):
    answer = tuner.send(b"{", token=token)
    assert answer.status_code == 401
    assert "secret" not in answer.text
    assert tuner.counted() == {"unauthorized": 1}


def test_a_new_token_holds_as_soon_as_it_is_there(tuner):
    assert tuner.send().status_code == 202
    draft = tuner.path.with_suffix(".new")
    draft.write_text("another")
    draft.replace(tuner.path)
    assert tuner.send().status_code == 401
    assert tuner.send(token="Bearer another").status_code == 202


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_nobody_has_a_token_that_is_not_there(tuner, content):
    tuner.path.unlink()
    if content is not None:
        tuner.path.write_text(content)
    assert tuner.send(token="Bearer ").status_code == 401
    assert tuner.send(token="Bearer secret").status_code == 401


def test_without_a_token_file_there_is_no_webhook(tmp_path):
    tuner = Tuner(tmp_path, token=False)
    assert tuner.send().status_code == 404
    assert tuner.counted() == {}


def test_a_body_too_long_is_refused_whether_it_says_so_or_not(tuner):
    long = b" " * webhook.MOST_BYTES
    assert tuner.send(body() + long).status_code == 413
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = tuner.client.post(
        "/alerts",
        input_stream=io.BytesIO(body() + long),
        headers={"Authorization": "Bearer secret"},
        environ_overrides=chunked,
    )
    assert answer.status_code == 413
    assert tuner.woken == 0


def test_a_flood_is_bounded_counted_and_not_forgotten(tuner):
    for number in range(webhook.MOST_WAITING + 20):
        tuner.send(body(groupKey=str(number)))
    assert tuner.counted() == {"accepted": webhook.MOST_WAITING, "dropped": 20}
    assert len(tuner.inbox.drain()) == webhook.MOST_WAITING
    last = body(groupKey=str(webhook.MOST_WAITING + 19))
    assert tuner.send(last).text == "accepted\n", "Alertmanager sends again what was answered with 503"


def test_a_tuner_that_stands_by_has_it_sent_again(tuner):
    tuner.is_ready = (False, "stands by")
    assert (tuner.send().status_code, tuner.counted()) == (503, {"dropped": 1})
    tuner.is_ready = (True, "well")
    assert tuner.send().text == "accepted\n"


def test_an_alert_fires_until_its_end_is_told_or_an_hour_has_passed(tuner):
    tuner.send()
    assert tuner.inbox.firing()
    tuner.send(body(a_status="resolved", status="resolved"))
    assert not tuner.inbox.firing()
    tuner.send(body(a_startsAt="2026-02-02T03:04:05Z"))
    tuner.now += 3599
    assert tuner.inbox.firing()
    tuner.now += 2
    assert not tuner.inbox.firing()


def test_decisions_take_whole_numbers_only(tuner):
    for query in ("after=x", "after=-1", "limit=1.5", "limit=", "after=" + "9" * 30, "after=²"):
        assert tuner.client.get(f"/decisions?{query}").status_code == 400, query
    assert tuner.client.get("/decisions?after=7&limit=1000000").json == {"decisions": []}
    assert tuner.client.get("/decisions?limit=0").json == {"decisions": []}


def test_health_says_why(tuner):
    assert tuner.client.get("/livez").status_code == 200
    tuner.is_ready = (False, "stands by")
    answer = tuner.client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "stands by\n")


class TestSwitch:
    def test_a_file_that_is_there_is_off_and_on_when_it_goes(self, tmp_path):
        switch = Switch(tmp_path / "stop")
        assert not switch.off()
        (tmp_path / "stop").touch()
        assert switch.off()
        (tmp_path / "stop").unlink()
        assert not switch.off()

    def test_a_link_to_nothing_counts(self, tmp_path):
        (tmp_path / "stop").symlink_to("/nonexistent")
        assert Switch(tmp_path / "stop").off()

    def test_what_cannot_be_told_is_off(self, tmp_path):
        """A loop of links on the way: neither there nor not there."""
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        assert Switch(tmp_path / "loop" / "stop").off()

    def test_none_is_never_off(self, tmp_path):
        assert not Switch(None).off()
        assert not Switch(tmp_path / "no" / "directory").off()
