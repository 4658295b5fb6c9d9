"""Slots and values: who owns what, what goes on, what starts anew, what a reader makes of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from observability import catalogue, exposition, layout, remains, slots
from observability.catalogue import Metric
from observability.page import Page
from observability.scrape import Scraper
from observability.store import OVERFLOW, Store
from tests.server import ROOT

HITS = Metric("test_hits_total", "counter", "Hits.", ("path",))
LEVEL = Metric("test_level", "gauge", "Level.", (), per_worker=True)
TIMES = Metric("test_seconds", "histogram", "Times.", ("path",), (0.1, 1.0))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    slots.prepare(tmp_path / "state")
    return tmp_path / "state"


def value(page: Page, name: str, suffix: str = "", bound: float = float("inf"), **labels: str) -> float | None:
    point = page[name].children[tuple(labels.items())][suffix, bound]
    return point.value if point.seen else None


def in_child(work: Callable[[], None], *, killed: bool = False) -> None:
    """Run work in a forked process and wait for its end, a clean one or by SIGKILL."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if killed else 0)


class TestSlots:
    def test_the_lowest_free_slot_is_claimed(self, directory: Path) -> None:
        first, second = slots.claim(directory), slots.claim(directory)
        assert [first.number, second.number] == [1, 2]
        first.close()
        assert slots.claim(directory).number == 1

    def test_the_kernel_frees_the_slot_of_a_killed_owner(self, directory: Path) -> None:
        in_child(lambda: Store(directory).claim(), killed=True)
        assert slots.claim(directory).number == 1

    def test_a_child_of_the_owner_does_not_hold_the_slot(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        ready, release = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            store.after_fork()
            os.write(ready[1], b"1")
            os.read(release[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        store.slot.close()
        try:
            assert slots.claim(directory).number == 1
        finally:
            os.write(release[1], b"1")
            os.waitpid(pid, 0)

    def test_asking_whether_a_slot_is_held_takes_nothing(self, directory: Path) -> None:
        slot = slots.claim(directory)
        fd = os.open(directory / "worker-1.slot", os.O_RDONLY)
        assert slots.held(fd)
        slot.close()
        assert not slots.held(fd)
        os.close(fd)

    @pytest.mark.parametrize("junk", [b"", b"x" * 100, b"\0" * layout.SIZE, b"SIGHTLN\0" + b"\xff" * 5000])
    def test_a_torn_or_foreign_file_is_kept_aside(self, directory: Path, junk: bytes) -> None:
        (directory / "worker-1.slot").write_bytes(junk)
        assert slots.claim(directory).number == 1
        assert (directory / "worker-1.slot.corrupt").read_bytes() == junk

    def test_a_symbolic_link_is_not_followed(self, directory: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        (directory / "worker-1.slot").symlink_to(victim)
        assert slots.claim(directory).number == 2
        assert victim.read_text() == "precious"

    def test_the_directory_is_private_and_emptying_it_touches_only_slots(self, directory: Path) -> None:
        assert directory.stat().st_mode & 0o777 == 0o700
        slots.claim(directory).close()
        (directory / "notes.txt").write_text("mine")
        slots.empty(directory)
        assert sorted(path.name for path in directory.iterdir()) == ["layout", "notes.txt"]

    def test_a_directory_that_is_a_file_is_refused_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(slots.DirectoryError, match=r"^OBSERVABILITY_DIR is .*, but takes .*$"):
            slots.prepare(tmp_path / "file")

    def test_many_processes_never_share_a_slot(self, directory: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from observability import slots\n"
            "print(slots.claim(Path(sys.argv[1])).number, flush=True); sys.stdin.read()"
        )
        running = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(directory)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(8)
        ]
        numbers = [int(process.stdout.readline()) for process in running if process.stdout]
        for process in running:
            process.communicate()
        assert sorted(numbers) == list(range(1, 9))


class TestValues:
    def test_counters_go_on_and_gauges_start_anew(self, directory: Path) -> None:
        def work() -> None:
            store = Store(directory)
            store.claim()
            store.child(HITS, "/a").inc(2)
            store.child(LEVEL).set(7)
            store.child(TIMES, "/a").observe(0.5)

        in_child(work)
        in_child(work, killed=True)
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/a") == 4
        assert value(page, "test_seconds", "_sum", path="/a") == 1.0
        assert value(page, "test_level", worker="1") is None  # its owner is dead

        store = Store(directory)
        store.claim()
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_level", worker="1") is None  # and the new one has not set it
        store.child(LEVEL).set(3)
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_level", worker="1") == 3

    def test_what_was_recorded_before_the_claim_is_carried_over(self, directory: Path) -> None:
        store = Store(directory)
        store.claims_lazily = False
        store.child(HITS, "/early").inc(5)
        store.claim()
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/early") == 5

    def test_slots_are_merged_and_per_worker_metrics_kept_apart(self, directory: Path) -> None:
        for amount in (1.0, 2.0):
            store = Store(directory)
            store.claim()
            store.child(HITS, "/a").inc(amount)
            store.child(LEVEL).set(amount)
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/a") == 3
        assert value(page, "test_level", worker="1") == 1
        assert value(page, "test_level", worker="2") == 2

    def test_label_sets_are_bounded_and_the_rest_is_counted(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OBSERVABILITY_MAX_LABEL_SETS", "10")
        store = Store(directory)
        store.claim()
        for number in range(25):
            store.child(HITS, f"/{number}").inc()
        page, _ = Scraper(directory).scrape()
        assert len(page["test_hits_total"].children) == 11
        assert value(page, "test_hits_total", path=OVERFLOW) == 15
        assert value(page, "observability_label_sets_refused_total", metric="test_hits_total") == 15

    def test_a_full_file_drops_new_series_and_counts_them(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(directory)
        store.claim()
        store.child(HITS, "/known").inc()
        monkeypatch.setattr(layout, "RECORDS_MAX", store.slot.records)
        store.child(HITS, "/new").inc()
        store.child(HITS, "/known").inc()
        monkeypatch.undo()
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/known") == 2
        assert value(page, "observability_store_refused_total") == 1

    def test_a_full_disk_drops_new_series_and_counts_them(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(directory)
        store.claim()
        store.child(HITS, "/known").inc()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        for number in range(3000):  # more than the pages that were reserved before
            store.child(HITS, f"/{number}").inc()
        store.child(HITS, "/known").inc()
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/known") == 2
        assert value(page, "observability_store_refused_total") > 0

    def test_threads_lose_no_increment(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        child = store.child(HITS, "/a")
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [
                threading.Thread(target=lambda: [child.inc() for _ in range(5000)], daemon=True) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        finally:
            sys.setswitchinterval(before)
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/a") == 40_000

    def test_a_fork_never_writes_into_its_parents_slot(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        child = store.child(HITS, "/a")
        child.inc()

        def work() -> None:
            store.after_fork()
            child.inc(10)
            assert store.number == 2

        in_child(work)
        page, _ = Scraper(directory).scrape()
        assert store.cells[child.places[0]] == 1
        assert value(page, "test_hits_total", path="/a") == 11

    def test_a_catalogue_metric_takes_just_its_labels(self, directory: Path) -> None:
        with pytest.raises(ValueError, match="takes the labels"):
            Store(directory).child(HITS)


class TestOrdinaryMetrics:
    """prometheus_client's own classes, in a process of their own: they are global there."""

    CODE = """
import os, sys
from observability import store
from prometheus_client import Counter, Gauge, Histogram, Summary
mode = sys.argv[1]
things = Counter("things", "Things.", ["kind"]); Counter("idle", "Never touched.")
level = Gauge("level", "Level."); total = Gauge("total", "Total.", multiprocess_mode="livesum")
top = Gauge("top", "Top.", multiprocess_mode="max"); last = Gauge("last", "Last.", multiprocess_mode="mostrecent")
times = Histogram("times", "Times.", ["kind"], buckets=[0.1, 1]); sizes = Summary("sizes", "Sizes.")
n = float(mode)
things.labels("a").inc(n, exemplar={"trace_id": "%032x" % int(n)}); level.set(n); total.inc(n); top.set(n); last.set(n)
times.labels("a").observe(n / 10, {"trace_id": "beef"}); sizes.observe(n)
print("ready", flush=True); sys.stdin.read()
"""

    @pytest.fixture
    def pair(self, directory: Path) -> Iterator[Path]:
        env = {**os.environ, "OBSERVABILITY_DIR": str(directory)}
        running = []
        for amount in ("1", "2"):
            process = subprocess.Popen(
                [sys.executable, "-c", self.CODE, amount],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            running.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield directory
        for process in running:
            process.communicate()

    def test_they_work_unchanged_over_processes(self, pair: Path) -> None:
        page, _ = Scraper(pair).scrape(exemplars=True)
        text = exposition.write(page, exposition.TEXT).decode()
        for line in (
            'things_total{kind="a"} 3.0',
            "idle_total 0.0",
            'level{worker="1"} 1.0',
            'level{worker="2"} 2.0',
            "total 3.0",
            "top 2.0",
            "last 2.0",
            'times_bucket{kind="a",le="0.1"} 1.0',
            'times_bucket{kind="a",le="1.0"} 2.0',
            'times_bucket{kind="a",le="+Inf"} 2.0',
            'times_count{kind="a"} 2.0',
            "sizes_count 2.0",
            "sizes_sum 3.0",
        ):
            assert f"\n{line}\n" in text
        openmetrics = exposition.write(page, exposition.OPENMETRICS).decode()
        assert 'things_total{kind="a"} 3.0 # {trace_id="00000000000000000000000000000002"} 2.0 ' in openmetrics
        assert 'times_bucket{kind="a",le="0.1"} 1.0 # {trace_id="beef"} 0.1 ' in openmetrics


class TestReader:
    @pytest.fixture
    def good(self, directory: Path) -> Store:
        store = Store(directory)
        store.claim()
        store.child(HITS, "/a").inc()
        return store

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(b"not a slot"),
            lambda path: os.truncate(path, 5000),
            lambda path: os.truncate(path, layout.RECORDS_AT + 3),
            lambda path: path.write_bytes(path.read_bytes()[: layout.RECORDS_AT] + b"\xff" * 4096),
            lambda path: (path.unlink(), path.mkdir()),
        ],
        ids=["empty", "foreign", "truncated", "records-cut", "records-torn", "a-directory"],
    )
    def test_a_bad_file_is_counted_and_the_rest_served(
        self, directory: Path, good: Store, spoil: Callable[[Path], object]
    ) -> None:
        bad = Store(directory)
        bad.claim()
        bad.child(HITS, "/a").inc()
        path = directory / "worker-2.slot"
        bad.slot.close()
        spoil(path)
        scraper = Scraper(directory)
        for _ in range(2):
            page, _ = scraper.scrape()
            assert value(page, "test_hits_total", path="/a") == 1
            assert value(page, "observability_store_corrupt_files") == 1
        assert list(scraper.corrupt) == [path]

    def test_a_file_cut_while_it_is_read_again_and_again(self, directory: Path, good: Store) -> None:
        scraper = Scraper(directory)
        scraper.scrape()
        victim = Store(directory)
        victim.claim()
        victim.child(HITS, "/b").inc()
        scraper.scrape()
        victim.slot.close()
        os.truncate(directory / "worker-2.slot", 100)
        page, _ = scraper.scrape()
        assert value(page, "test_hits_total", path="/a") == 1
        assert value(page, "observability_store_corrupt_files") == 1

    def test_new_series_and_new_slots_are_seen_by_a_reader_that_stays(self, directory: Path, good: Store) -> None:
        scraper = Scraper(directory)
        scraper.scrape()
        good.child(HITS, "/b").inc(2)
        other = Store(directory)
        other.claim()
        other.child(HITS, "/b").inc(3)
        page, _ = scraper.scrape()
        assert value(page, "test_hits_total", path="/b") == 5

    def test_an_emptied_directory_is_read_anew(self, directory: Path, good: Store) -> None:
        scraper = Scraper(directory)
        scraper.scrape()
        slots.empty(directory)
        fresh = Store(directory)
        fresh.claim()
        fresh.child(HITS, "/c").inc()
        page, _ = scraper.scrape()
        assert list(page["test_hits_total"].children) == [(("path", "/c"),)]

    def test_two_releases_that_disagree_on_a_metrics_type_do_not_mix(self, directory: Path, good: Store) -> None:
        other = Store(directory)
        other.claim()
        other.child(Metric("test_hits_total", "gauge", "Hits.", ("path",)), "/a").set(99)
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="/a") == 1

    def test_a_running_request_counts_as_busy_up_to_now_and_to_its_workers_end(self, directory: Path) -> None:
        def work() -> None:
            store = Store(directory)
            store.claim()
            store.cells[layout.ACTIVE] = 1
            store.cells[layout.STARTS] = time.monotonic() - 5

        scraper = Scraper(directory)
        in_child(work, killed=True)
        pid = slots.read_note((directory / "worker-1.slot").read_bytes()[: layout.HEADER_SIZE])["pid"]
        remains.bury(directory, 1, pid)
        page, _ = scraper.scrape()
        busy = value(page, "gunicorn_worker_busy_seconds_total", worker="1")
        assert busy is not None
        assert 5 <= busy < 10
        time.sleep(0.1)
        assert value(scraper.scrape()[0], "gunicorn_worker_busy_seconds_total", worker="1") == busy
        Store(directory).claim()
        page, _ = scraper.scrape()
        after = value(page, "gunicorn_worker_busy_seconds_total", worker="1")
        assert after == pytest.approx(busy, abs=1e-6)
        assert after >= busy - 1e-9

    def test_hostile_label_values_are_escaped(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        store.child(HITS, 'a"b\\c\nd# EOF').inc()
        page, _ = Scraper(directory).scrape()
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
        from prometheus_client.parser import text_string_to_metric_families as text

        for parse, content_type in ((text, exposition.TEXT), (openmetrics, exposition.OPENMETRICS)):
            families = parse(exposition.write(page, content_type).decode())
            labels = [sample.labels for family in families for sample in family.samples if "test_hits" in sample.name]
            assert labels == [{"path": 'a"b\\c\nd# EOF'}]


def test_requests_in_flight_are_seen_by_another_process(directory: Path) -> None:
    store = Store(directory)
    store.claim()
    entries = [store.slot.flight.enter("GET", f"/{number}", "ab" * 16, 2000.0 - number) for number in range(1100)]
    scraper = Scraper(directory)
    (slot_file,) = scraper.files()
    seen = list(slot_file.flights())
    assert len(seen) == layout.FLIGHT_ENTRIES
    assert seen[0]["path"] == f"/{layout.FLIGHT_ENTRIES - 1}"  # the earliest start comes first
    assert seen[0]["trace_id"] == "ab" * 16
    for entry in entries:
        store.slot.flight.leave(entry)
    assert list(slot_file.flights()) == []


def test_exposition_negotiates_by_the_accept_header() -> None:
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    assert exposition.negotiate(prometheus) == exposition.OPENMETRICS
    assert exposition.negotiate("") == exposition.negotiate("text/html") == exposition.TEXT


def test_the_catalogue_has_sound_names() -> None:
    for name, metric in catalogue.METRICS.items():
        assert name == metric.name
        assert name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert metric.help.endswith(".")


class TestReviewed:
    """Each of these was once wrong, or would have gone unnoticed."""

    def test_an_exemplar_of_a_refused_series_harms_nothing(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(directory)
        store.claim()
        store.child(HITS, "/a").inc()
        monkeypatch.setattr(layout, "RECORDS_MAX", store.slot.records)
        store.child(TIMES, "/a").observe(0.5, {"trace_id": "beef"})
        monkeypatch.undo()
        page, _ = Scraper(directory).scrape(exemplars=True)
        assert value(page, "test_hits_total", path="/a") == 1
        assert value(page, "observability_store_corrupt_files") == 0

    def test_a_histogram_finds_room_whole_or_not_at_all(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(directory)
        store.claim()
        monkeypatch.setattr(layout, "VALUES_MAX", store.slot.cells + 2)
        store.child(TIMES, "/a").observe(0.5)
        monkeypatch.undo()
        page, _ = Scraper(directory).scrape()
        assert "test_seconds" not in page

    def test_label_values_that_are_no_text_are_taken(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        for _ in range(2):
            store.child(HITS, "\ud800").inc()
        page, _ = Scraper(directory).scrape()
        assert value(page, "test_hits_total", path="?") == 2

    def test_a_change_that_cannot_be_seen_whole_never_lowers_the_busy_time(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        store.cells[layout.BUSY], store.cells[layout.ACTIVE] = 1.0, 1.0
        store.cells[layout.STARTS] = time.monotonic() - 5
        scraper = Scraper(directory)
        before = value(scraper.scrape()[0], "gunicorn_worker_busy_seconds_total", worker="1")
        assert before is not None
        assert before >= 6
        store.cells[layout.SEQUENCE] = 1.0  # the writer is stopped in the middle of a change
        store.cells[layout.ACTIVE] = 0.0
        between = value(scraper.scrape()[0], "gunicorn_worker_busy_seconds_total", worker="1")
        store.cells[layout.STARTS], store.cells[layout.BUSY], store.cells[layout.SEQUENCE] = 0.0, 6.0, 2.0
        after = value(scraper.scrape()[0], "gunicorn_worker_busy_seconds_total", worker="1")
        assert between == after == before

    def test_a_reader_waits_for_a_change_under_way(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        store.cells[layout.SEQUENCE] = 1.0

        def finish() -> None:
            store.cells[layout.REQUESTS] = 1.0
            store.cells[layout.SEQUENCE] = 2.0

        scraper = Scraper(directory)
        threading.Timer(0.001, finish).start()
        page, _ = scraper.scrape()
        assert value(page, "gunicorn_worker_requests_total", worker="1") == 1

    def test_a_new_owner_finds_no_request_in_flight(self, directory: Path) -> None:
        def work() -> None:
            store = Store(directory)
            store.claim()
            store.slot.flight.enter("GET", "/stuck", "ab" * 16, time.monotonic())

        in_child(work, killed=True)
        Store(directory).claim()
        (slot_file,) = Scraper(directory).files()
        assert list(slot_file.flights()) == []

    def test_a_torn_exemplar_is_not_shown(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        store.child(TIMES, "/a").observe(0.5, {"trace_id": "beef"})
        at = layout.EXEMPLARS_AT + layout.EXEMPLAR.size + 3
        store.slot.memory[at : at + 4] = b"\0\0\0\0"
        page, _ = Scraper(directory).scrape(exemplars=True)
        assert b"# {" not in exposition.write(page, exposition.OPENMETRICS).replace(b"# HELP", b"").replace(b"# T", b"")
        assert value(page, "test_seconds", "_sum", path="/a") == 0.5

    def test_a_slot_that_is_being_taken_over_is_not_live_with_what_the_last_owner_left(self, directory: Path) -> None:
        first = Store(directory)
        first.claim()
        first.child(LEVEL).set(7)
        first.slot.write_note(booted=True)
        first.slot.close()
        remains.bury(directory, 1, os.getpid())
        seen = []

        class Watched(Store):
            def _use(self, slot: slots.Slot) -> None:
                if slot.fd >= 0:
                    seen.append(look())
                super()._use(slot)

        def look() -> tuple[bool, dict[str, object], bool]:
            page, (reading,) = Scraper(directory).scrape()
            return (
                reading.live,
                slots.live_note(slots.path_of(directory, "worker", 1)),
                "test_level" in page
                and any(point.seen for points in page["test_level"].children.values() for point in points.values()),
            )

        second = Watched(directory)
        second.claim()
        assert seen == [(False, {}, False)]
        live, note, shown = look()
        assert (live, note["pid"], "booted" in note, shown) == (True, os.getpid(), False, False)
        second.child(LEVEL).set(0)
        assert look()[2]

    def test_a_live_worker_cannot_be_marked_as_ended(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        assert remains.bury(directory, 1, os.getpid()) is None
        assert layout.ENDED.unpack_from(store.slot.memory, layout.ENDED_AT)[0] == 0

    def test_a_fork_under_way_of_a_record_does_not_hang_the_child(self, directory: Path) -> None:
        store = Store(directory)
        store.claim()
        child = store.child(HITS, "/a")
        taken, release = threading.Event(), threading.Event()

        def hold() -> None:
            with store.lock:
                taken.set()
                release.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        taken.wait(20)
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            store.after_fork()
            child.inc()
            os._exit(0)
        release.set()
        holder.join()
        assert os.waitpid(pid, 0)[1] == 0

    def test_the_files_that_could_not_be_read_are_named_in_the_state(self, directory: Path) -> None:
        from observability.agent.view import View

        (directory / "worker-1.slot").write_bytes(b"junk")
        assert list(View(directory).state()["agent"]["corrupt_files"]) == [str(directory / "worker-1.slot")]


def test_the_apps_own_metrics_are_bounded_in_memory_too(tmp_path: Path) -> None:
    code = (
        "from observability import counter, store\n"
        "made = counter('things_total', 'Things.', ['kind'])\n"
        "for number in range(3000): made.labels(str(number)).inc()\n"
        "for number in range(3000): made.labels(kind=str(number)).inc()\n"
        "print(len(made._metrics))"
    )
    env = {**os.environ, "OBSERVABILITY_DIR": str(tmp_path / "state"), "OBSERVABILITY_MAX_LABEL_SETS": "50"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 51
    page, _ = Scraper(tmp_path / "state").scrape()
    assert value(page, "things_total", kind="7") == 2
    assert value(page, "things_total", kind=OVERFLOW) == 2 * 2950
