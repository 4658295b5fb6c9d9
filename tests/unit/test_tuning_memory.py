"""What the tuner remembers: whole over restarts, bounded, and no trouble to the tuner when the disk is."""

import os
import stat

import msgspec
import pytest

from observability.tuning import memory as module
from observability.tuning.decision import _numbers
from observability.tuning.memory import Entry, Memory, UnreadableError, read
from observability.tuning.model import Action, Advice, History, Mode, Outcome, Signals, Step
from observability.tuning.table import TABLE

NOW = 1_700_000_000.0
SIGNALS = Signals("a:9101", NOW, 1.0, "sync", 2, 2, 1.0, 2.0, busy_by_worker=(0.9, 0.8), queue_p95=None)


def step(at=NOW, outcome=Outcome.KEPT, **more):
    return Step(at, Action.ADD, 2, 3, "io_wait", outcome, SIGNALS, **more)


def entry(server="a:9101", **more):
    usual = {"time": NOW, "kind": "decision", "server": server, "mode": Mode.APPLY, "action": "hold", "rule": "well"}
    usual |= {"outcome": Outcome.NONE, "diagnosis": "d", "reason": "r", "before": 2, "workers": 2}
    return Entry(**usual | more)


@pytest.fixture
def troubles():
    return []


@pytest.fixture
def memory(tmp_path, troubles):
    return Memory(tmp_path, troubles.append)


def reopened(memory):
    found = Memory(memory.path.parent, lambda reason: None)
    assert found.load() == ""
    return found


def test_everything_is_there_after_a_restart(memory, troubles):
    history = History((step(), step(NOW + 1, Outcome.APPLIED)), 3, NOW + 99, 2)
    advice = Advice("GUNICORN_THREADS", "16", "8", "why", "what")
    memory.remember("a:9101", history, NOW)
    memory.add(entry(advice=(advice,), numbers={"busy": 0.9, "class": "sync", "lag": None}))
    assert memory.first_time(["key"], NOW)
    memory.save()
    again = reopened(memory)
    assert again.history("a:9101") == history
    assert again.entries() == memory.entries()
    assert again.entries()[0].advice == (advice,)
    assert not again.first_time(["key"], NOW)
    assert again.add(entry()).id == 2
    assert troubles == [""], "the state is well"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_what_any_row_looks_at_is_read_again(memory, row):
    memory.add(entry(numbers=_numbers(row, SIGNALS)))
    memory.save()
    assert reopened(memory).entries() == memory.entries()


def test_the_file_is_its_owners_and_no_draft_is_left(memory):
    memory.add(entry())
    memory.save()
    assert [path.name for path in memory.path.parent.iterdir()] == ["memory.json"]
    assert stat.S_IMODE(memory.path.stat().st_mode) == 0o600


def test_nothing_is_written_while_nothing_changes(memory):
    memory.remember("a:9101", History((step(),)), NOW)
    memory.save()
    before = memory.path.stat().st_ino
    memory.remember("a:9101", History((step(),)), NOW + 1)
    memory.save()
    assert memory.path.stat().st_ino == before
    memory.remember("a:9101", History((step(), step(NOW + 1))), NOW + 1)
    memory.save()
    assert memory.path.stat().st_ino != before


def test_a_crash_while_writing_leaves_the_old_file(memory, monkeypatch):
    memory.add(entry())
    memory.save()
    memory.add(entry())

    def crash(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        memory.save()
    assert len(reopened(memory).entries()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Input data was truncated"),
        (b"\0" * 100, "malformed"),
        (b"{}", "version"),
        (b'{"version": 2}', "it has version 2, and this tuner writes 1"),
        (b'{"version": 1, "servers": {"a": {"history": {"steps": [1]}, "seen": 1}}}', "steps"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_corrupt_file_is_set_aside_and_the_tuner_begins_anew(memory, text, said):
    memory.path.write_bytes(text)
    assert said in memory.load()
    assert memory.load() == "", "once"
    assert memory.history("a:9101") == History()
    assert memory.path.with_suffix(".unreadable").read_bytes() == text
    memory.add(entry())
    memory.save()
    assert len(reopened(memory).entries()) == 1


def test_a_full_disk_is_said_and_the_tuner_goes_on_in_memory(memory, troubles, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for number in range(2):
            memory.remember("a:9101", History(accepted=number + 3), NOW)
            memory.save()
    assert troubles == [f"{memory.path} cannot be written: No space left on device"] * 2
    assert memory.history("a:9101").accepted == 4
    memory.save()
    assert troubles[-1] == "", "tried again, though nothing has changed meanwhile"
    assert reopened(memory).history("a:9101").accepted == 4


def test_steps_of_a_day_are_kept_and_not_more_than_so_many(memory):
    old, new = step(NOW - module.DAY), step(NOW - module.DAY + 1)
    memory.remember("a:9101", History((old, new)), NOW)
    assert memory.history("a:9101").steps == (new,)
    memory.remember("a:9101", History(tuple(step(NOW - 1000 + each) for each in range(500))), NOW)
    kept = memory.history("a:9101").steps
    assert len(kept) == module.MOST_STEPS
    assert kept[-1].time == NOW - 1000 + 499


def test_everything_else_is_bounded_and_the_oldest_goes(memory):
    for number in range(module.MOST_SERVERS + 5):
        memory.remember(f"{number}:9101", History(accepted=3), NOW + number)
    assert len(memory.servers()) == module.MOST_SERVERS
    assert memory.history("4:9101") == History()
    assert memory.history("5:9101").accepted == 3
    for number in range(module.MOST_ENTRIES + 5):
        memory.add(entry(before=number))
    memory.save()
    assert [len(memory.entries()), memory.entries()[0].before] == [module.MOST_ENTRIES, 5]
    assert memory.first_time([str(number) for number in range(module.MOST_SEEN + 5)], NOW)
    assert memory.first_time(["4"], NOW)
    assert not memory.first_time([str(module.MOST_SEEN)], NOW)


def test_entries_are_paged_by_id_and_the_newest_is_last(memory):
    for _ in range(10):
        memory.add(entry())
    memory.save()
    assert [each.id for each in memory.entries(limit=3)] == [8, 9, 10]
    assert [each.id for each in memory.entries(after=2, limit=3)] == [3, 4, 5]
    assert memory.entries(after=10) == []
    assert [each.id for each in memory.entries(after=0)] == list(range(1, 11))


def test_an_entry_is_shown_once_a_crash_would_not_lose_it(memory, monkeypatch):
    """Or the tuner that comes back would give its id to another, and who reads on from that id would miss it."""
    memory.add(entry())
    memory.save()
    memory.add(entry())
    assert [each.id for each in memory.entries()] == [1]
    memory.save()
    assert [each.id for each in memory.entries()] == [1, 2]
    assert [each.id for each in reopened(memory).entries()] == [1, 2]

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    memory.add(entry())
    memory.save()
    assert [each.id for each in memory.entries()] == [1, 2, 3], "a full disk hides nothing"


def test_the_newest_decision_of_a_server_is_found(memory):
    memory.add(entry(rule="first"))
    memory.add(entry(rule="second"))
    memory.add(entry(kind="outcome", rule="third"))
    memory.add(entry("b:9101", rule="fourth"))
    assert memory.newest("a:9101").rule == "second"
    assert memory.newest("c:9101") is None


def test_a_file_of_an_earlier_model_is_read(memory):
    """Fields that came later have defaults, and fields that are gone are no concern."""
    memory.remember("a:9101", History((step(),)), NOW)
    memory.save()
    raw = msgspec.json.decode(memory.path.read_bytes())
    raw["servers"]["a:9101"]["history"]["steps"][0]["signals"].pop("preload")
    raw["servers"]["a:9101"]["history"]["gone"] = 1
    memory.path.write_bytes(msgspec.json.encode(raw))
    assert reopened(memory).history("a:9101").steps == (step(),)


def test_a_file_that_may_not_be_read_is_said(memory):
    memory.path.mkdir()
    with pytest.raises(UnreadableError, match="Is a directory"):
        read(memory.path)
