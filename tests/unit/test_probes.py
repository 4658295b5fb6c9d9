"""What the kernel, the loop and the collector tell, read right: also where they tell nothing, or something odd."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from observability import catalogue, context, layout, logs, loops, store
from observability.agent.outside import Ledger, Outside
from observability.page import Page
from observability.probes import busy, cgroup, inside, process, sockets, watch
from observability.probes.collector import Collector
from observability.probes.lasting import Lasting
from observability.probes.loop import RECENT_SECONDS, TICK_SECONDS, Clock, Longest
from observability.store import STORE
from tests.server import ROOT, wait_until

# it sleeps once, since a process that has a core to itself may otherwise never be switched from
SPIN = "import time\ntime.sleep(0.01)\nprint('ready', flush=True)\nwhile True: pass\n"


@contextmanager
def waiting(host: str, count: int, *, family: socket.AddressFamily = socket.AF_INET, backlog: int = 5) -> Iterator[Any]:
    """Listen, have clients wait, and yield the listener."""
    with socket.create_server((host, 0), family=family, backlog=backlog) as listener:
        clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(count)]
        yield listener
        for client in clients:
            client.close()


def inode(listener: socket.socket) -> int:
    return os.fstat(listener.fileno()).st_ino


class TestSockets:
    @pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", "tcp"), ("::1", "tcp6")])
    def test_connections_that_wait_and_the_limit_are_seen(self, host: str, kind: str) -> None:
        family = socket.AF_INET6 if kind == "tcp6" else socket.AF_INET
        with waiting(host, 3, family=family) as listener:
            shown = f"[{host}]" if kind == "tcp6" else host
            found = wait_until(lambda: [each for each in seen(listener) if each.backlog == 3], 5)
            assert found == [
                sockets.Listener(inode(listener), f"{shown}:{listener.getsockname()[1]}", kind, 3, limit=5, drops=0)
            ]

    def test_a_full_backlog_drops_and_that_is_counted_at_the_listener_and_in_the_namespace(self) -> None:
        before = sockets.overflows()
        assert before is not None
        with waiting("127.0.0.1", 2, backlog=1) as listener:  # the kernel lets one more in than it is told
            assert [(each.backlog, each.limit) for each in seen(listener)] == [(2, 1)]
            with socket.socket() as late:
                late.setblocking(False)
                late.connect_ex(listener.getsockname())
                wait_until(lambda: (seen(listener)[0].drops or 0) >= 1, 10, "a dropped connection")
                assert (sockets.overflows() or 0) > before

    def test_a_unix_sockets_queue_is_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "app.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(4)
            clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for client in clients:
                client.connect(str(path))
            assert seen(listener) == [sockets.Listener(inode(listener), f"unix:{path}", "unix", 3, limit=4)]
            for client in clients:
                client.close()

    def test_sockets_of_one_address_are_told_apart_by_their_inode(self) -> None:
        first, second = socket.socket(), socket.socket()
        with first, second:
            for each in (first, second):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            first.bind(("127.0.0.1", 0))
            second.bind(first.getsockname())
            first.listen(3)
            second.listen(4)
            found = sockets.listeners({inode(first), inode(second)})
            assert sorted(each.limit or 0 for each in found) == [3, 4]
            assert len({each.address for each in found}) == 1

    def test_without_netlink_the_tables_of_proc_tell_what_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object) -> None:
            raise PermissionError

        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with waiting(host, 2, family=family) as listener:
                whole = wait_until(lambda: [each for each in seen(listener) if each.backlog == 2], 5)
                with monkeypatch.context() as patch:
                    patch.setattr(sockets, "_dump", refused)
                    (found,) = seen(listener)
                assert (found.address, found.kind, found.backlog) == (whole[0].address, whole[0].kind, 2)
                assert found.limit is None

    def test_a_process_has_its_sockets_and_nothing_of_one_that_is_gone(self) -> None:
        with waiting("127.0.0.1", 0) as listener:
            assert inode(listener) in sockets.inodes_of(os.getpid())
            assert sockets.inode_of(os.getpid(), listener.fileno()) == inode(listener)
        assert sockets.inodes_of(-1) == set()
        assert sockets.inode_of(os.getpid(), -1) is None
        assert sockets.listeners(set()) == []


def seen(listener: socket.socket) -> list[sockets.Listener]:
    return sockets.listeners({inode(listener)})


class TestProcess:
    @pytest.fixture
    def spinning(self) -> Iterator[int]:
        with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            running.stdout.readline()
            yield running.pid
            running.kill()

    def test_cpu_memory_descriptors_and_threads_are_read(self, spinning: int) -> None:
        first = process.read(spinning)
        assert first is not None
        later = wait_until(lambda: (now := process.read(spinning)) and now.user > first.user and now, 10)
        assert 1_000_000 < later.rss < 1_000_000_000
        assert later.fds == len(list(Path(f"/proc/{spinning}/fd").iterdir()))
        assert list(later.threads) == [spinning]
        thread = later.threads[spinning]
        assert thread.involuntary + thread.voluntary > 0
        pss = process.proportional(spinning)
        assert pss is not None
        assert 0 < pss <= later.rss + 4_000_000  # read a moment later

    def test_waiting_for_a_cpu_is_told_from_running(self, spinning: int) -> None:
        cpu = min(os.sched_getaffinity(0))
        with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as rival:
            for pid in (spinning, rival.pid):
                os.sched_setaffinity(pid, {cpu})
            before = process.read(spinning)
            assert before is not None
            waited = before.threads[spinning].run_queue
            assert waited is not None, "this kernel keeps no scheduler statistics"

            def more() -> bool:
                now = process.read(spinning)
                return now is not None and (now.threads[spinning].run_queue or 0.0) - waited > 0.2

            wait_until(more, 20, "two processes to share a CPU")
            rival.kill()

    def test_a_process_that_is_not_there_is_none(self) -> None:
        assert process.read(2**22 + 1) is None
        assert process.proportional(2**22 + 1) is None

    def test_a_process_is_known_by_the_file_that_it_maps(self, tmp_path: Path) -> None:
        from mmap import mmap

        path = tmp_path / "mapped"
        path.write_bytes(b"x" * 4096)
        with path.open("r+b") as file:
            mapped = mmap(file.fileno(), 4096)
            assert process.maps(os.getpid(), path.stat())
            mapped.close()
        assert not process.maps(os.getpid(), path.stat())
        assert not process.maps(2**22 + 1, path.stat())


V2 = {
    "cgroup.controllers": "cpu io memory pids\n",
    "cpu.max": "150000 100000\n",
    "cpu.stat": "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 70\nnr_throttled 7\nthrottled_usec 2500000\n",
    "memory.max": "1073741824\n",
    "memory.current": "900000000\n",
    "memory.stat": "anon 5\nfile 6\ninactive_file 300000000\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n",
    "cpu.pressure": "some avg10=1.00 avg60=0.0 avg300=0.0 total=3000000\nfull avg10=0.0 avg60=0.0 avg300=0.0 total=0\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
}


class TestCgroup:
    @pytest.fixture
    def group(self, tmp_path: Path) -> Path:
        directory = tmp_path / "sys" / "service"
        directory.mkdir(parents=True)
        for name, text in V2.items():
            (directory / name).write_text(text)
        return directory

    def test_limits_and_what_is_used_of_them(self, group: Path, tmp_path: Path) -> None:
        assert cgroup.read(group, host=tmp_path / "none") == cgroup.Usage(
            quota=1.5,
            periods=70,
            throttled_periods=7,
            throttled_seconds=2.5,
            memory_limit=1 << 30,
            memory_used=600_000_000,
            oom_kills=2,
            pressure={
                ("cgroup", "cpu", "some"): 3.0,
                ("cgroup", "cpu", "full"): 0.0,
                ("cgroup", "memory", "some"): 0.5,
            },
        )

    def test_no_limit_is_left_out(self, group: Path, tmp_path: Path) -> None:
        (group / "cpu.max").write_text("max 100000\n")
        (group / "memory.max").write_text("max\n")
        usage = cgroup.read(group, host=tmp_path / "none")
        assert (usage.quota, usage.memory_limit) == (None, None)

    @pytest.mark.parametrize("text", ["", "garbage\n", "1 2 3 4\n", "\n\n"])
    def test_files_that_say_something_else_are_left_out(self, group: Path, tmp_path: Path, text: str) -> None:
        for path in group.iterdir():
            path.write_text(text)
        assert cgroup.read(group, host=tmp_path / "none") == cgroup.Usage()

    def test_absent_files_leave_the_hosts_pressure(self, tmp_path: Path) -> None:
        (tmp_path / "cpu").write_text(V2["cpu.pressure"])
        empty = tmp_path / "empty"
        empty.mkdir()
        for directory in (None, empty):
            usage = cgroup.read(directory, host=tmp_path)
            assert usage == cgroup.Usage(pressure={("host", "cpu", "some"): 3.0, ("host", "cpu", "full"): 0.0})

    @pytest.mark.parametrize(
        ("membership", "found"),
        [
            ("0::/service\n", True),
            ("4:memory:/service\n0::/service\n", True),
            ("4:memory:/service\n0::/\n", False),  # version 1 beside an unused version 2
            ("0::/../other\n", False),  # of another cgroup namespace
            ("", False),
        ],
    )
    def test_a_process_is_in_the_group_that_is_mounted(
        self, group: Path, tmp_path: Path, membership: str, found: bool
    ) -> None:
        (tmp_path / "proc" / "7").mkdir(parents=True)
        (tmp_path / "proc" / "7" / "cgroup").write_text(membership)
        assert cgroup.directory_of(7, group.parent, tmp_path / "proc") == (group if found else None)
        assert cgroup.directory_of(8, group.parent, tmp_path / "proc") is None


class TestLasting:
    def test_what_a_gone_member_counted_stays(self) -> None:
        counter = Lasting()
        for members, total in [({1: 5.0}, 5), ({1: 7.0, 2: 1.0}, 8), ({2: 3.0}, 10), ({}, 10), ({3: 0.5}, 10.5)]:
            counter.update(members)
            assert counter.total == total

    def test_a_number_that_is_used_again_is_a_new_member(self) -> None:
        counter = Lasting()
        counter.update({1: 5.0})
        counter.update({1: 2.0})
        assert counter.total == 7

    def test_a_slots_counters_go_on_with_its_next_worker(self) -> None:
        def worker(user: float, wait: float, tid: int) -> process.Process:
            return process.Process(user, 1.0, 100, 3, {tid: process.Thread(wait, 10, 1)})

        ledger = Ledger()
        for pid, found in [(7, worker(5, 2, 7)), (0, None), (8, worker(1, 0.5, 8)), (8, worker(2, 0.5, 8))]:
            ledger.take(pid, found)
        assert (ledger.user.total, ledger.system.total, ledger.run_queue.total) == (7, 2, 2.5)
        assert (ledger.voluntary.total, ledger.involuntary.total) == (20, 2)
        assert ledger.cpu == 3  # the present worker's own

    def test_a_read_that_fails_while_the_worker_lives_counts_nothing_twice(self) -> None:
        found = process.Process(5.0, 1.0, 100, 3, {7: process.Thread(2.0, 10, 1)})
        ledger = Ledger()
        for missed in (found, None, found):
            ledger.take(7, missed)
            assert ledger.now is missed
            assert (ledger.user.total, ledger.system.total, ledger.run_queue.total) == (5, 1, 2)
            assert (ledger.voluntary.total, ledger.involuntary.total) == (10, 1)
        for pid, late in [(7, None), (0, None), (8, found)]:
            ledger.take(pid, late)
        assert (ledger.user.total, ledger.run_queue.total) == (10, 4)

    def test_drops_that_the_kernel_does_not_tell_for_once_are_not_counted_twice(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = sockets.Listener(9, "127.0.0.1:80", "tcp", 0, limit=5, drops=3)
        outside = Outside()
        for drops in (3, None, 3, 4):
            now = [replace(told, drops=drops)]
            monkeypatch.setattr(sockets, "listeners", lambda _, now=now: now)
            outside._look_at_listeners([], [], time.monotonic())
            page = Page()
            outside.put(page)
            assert page.value(catalogue.LISTEN_DROPS, told.address) == drops


def mark(busy_seconds: float = 0.0, **known: Any) -> busy.Mark:
    whole = {"pid": 1, "capacity": None, "cpu": None, "late": None, "late_now": None} | known
    return busy.Mark(busy=busy_seconds, **whole)


class TestBusyRatio:
    @pytest.mark.parametrize(
        ("what", "before", "after", "expected"),
        [
            ("idle", mark(capacity=1, cpu=1), mark(capacity=1, cpu=1), 0),
            ("sync, half of the time", mark(capacity=1), mark(5, capacity=1), 0.5),
            ("gthread, all of 4 threads", mark(capacity=4, cpu=0), mark(40, capacity=4, cpu=1), 1),
            ("gthread, one thread of 4 holds the GIL", mark(capacity=4, cpu=0), mark(10, capacity=4, cpu=9), 0.9),
            ("gevent, 50 wait", mark(capacity=1000, cpu=0, late=0), mark(500, capacity=1000, cpu=0.2, late=0.1), 0.05),
            (
                "gevent, blocked without CPU",
                mark(capacity=1000, cpu=0, late=0),
                mark(10, capacity=1000, cpu=0, late=8),
                0.8,
            ),
            ("asgi, blocked still", mark(cpu=0, late=2), mark(10, cpu=0, late=2, late_now=6), 0.6),
            ("asgi, blocked before its first tick", mark(), mark(cpu=0, late=0, late_now=6), 0.6),
            ("asgi, blocked before and still", mark(late=2, late_now=3), mark(late=2, late_now=13), 1),
            ("asgi, blocked before and not for long", mark(late=2, late_now=3), mark(late=6, late_now=0), 0.1),
            ("asgi, blocked before and no more", mark(late=2, late_now=3), mark(late=5, late_now=0), 0),
            ("asgi, its loop always running", mark(cpu=0, late=0), mark(500, cpu=10.3, late=1), 1),
            ("nothing known", mark(), mark(99), 0),
        ],
    )
    def test_it_is_the_share_of_the_scarcest_thing(
        self, what: str, before: busy.Mark, after: busy.Mark, expected: float
    ) -> None:
        assert busy.ratio(before, after, 10) == pytest.approx(expected), what

    def test_it_covers_the_last_seconds_however_often_it_is_asked(self) -> None:
        window = busy.Window()
        for tenth in range(200):  # busy for 10 s, then idle for 10 s
            now = tenth / 10
            found = window.ratios(100 + now, {"1": mark(min(now, 10.0), capacity=1)})
            if now < 1:
                assert found == {}, "too short to tell"
            elif now < 10:
                assert found["1"] == pytest.approx(1)
            elif now > 16.5:
                assert found["1"] == 0

    def test_a_loop_that_was_blocked_is_idle_a_window_later(self) -> None:
        window = busy.Window()
        found = {}
        for tenth in range(200):  # it is blocked from 5 s to 9 s
            now = tenth / 10
            late, late_now = (4.0, 0.0) if now >= 9 else (0.0, max(0.0, now - 5))
            ratios = window.ratios(100 + now, {"1": mark(cpu=0, late=late, late_now=late_now)})
            found[now] = ratios.get("1")
        assert found[5.0] == 0
        assert 0.6 < (found[9.0] or 0) <= 0.8
        assert max(each for at, each in found.items() if at >= 15 and each is not None) == 0

    def test_a_slots_next_worker_is_not_compared_with_its_last(self) -> None:
        window = busy.Window()
        window.ratios(0, {"1": mark(50, capacity=1)})
        assert window.ratios(3, {"1": mark(50, pid=2, capacity=1), "2": mark(capacity=1)}) == {}
        assert window.ratios(5, {"1": mark(51, pid=2, capacity=1)})["1"] == pytest.approx(0.5)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what is logged from here on."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(logs, "emit", lambda *args: found.append(args))
    return found


def counted(metric: catalogue.Metric) -> float:
    recorder = store.child(metric)
    recorder.bind()
    return float(STORE.cells[recorder.places[0]])


class TestLoop:
    def test_the_longest_lag_is_kept_for_some_seconds(self) -> None:
        longest = Longest()
        longest.note(0.7)
        seen = {}
        for half in range(40):  # it is asked twice a second, beside a loop that is idle but for that
            if half < 10:
                longest.note(0.1)
            seen[half / 2] = longest.longest(1000 + half / 2)
        assert {lag for at, lag in seen.items() if at < RECENT_SECONDS} == {0.7}
        assert {lag for at, lag in seen.items() if at > 2 * RECENT_SECONDS + 2.5} == {0}
        assert sorted(seen.values(), reverse=True) == list(seen.values())

    def test_a_late_tick_is_a_lag_and_none_is_awaited_before_or_after(self) -> None:
        clock = Clock()
        assert clock.due == inf
        clock.begin()
        clock.due -= 2
        clock.tick()
        assert 1.5 < clock.longest.longest(time.monotonic()) < 2
        assert 0 < clock.due - time.monotonic() <= TICK_SECONDS
        clock.end()
        clock.tick()
        assert clock.due == inf

    def test_a_blocked_loop_is_told_once_with_its_stack_and_its_request(self, told: list[tuple[Any, ...]]) -> None:
        before = counted(catalogue.WORKER_BLOCKED)
        clock = Clock()
        watching = watch.Watch(inside.Looping(SimpleNamespace()), 0.5, clock)
        clock.begin()
        now = time.monotonic()
        assert watching.look(now) == watch.LOOP_SECONDS
        clock.due = now - 0.3
        assert watching.look(now) == pytest.approx(0.2 - watch.AGAIN_SECONDS), "just before the loop is late enough"
        clock.due = now - 0.46
        assert watching.look(now) == pytest.approx(watch.AGAIN_SECONDS)
        assert watching.look(now + 0.02) == pytest.approx(0.02), "just when it is"
        assert told == []
        clock.due = now - 3
        for _ in range(4):
            watching.look(now)
        assert counted(catalogue.WORKER_BLOCKED) == before + 1
        assert counted(catalogue.WORKER_LAG_MAX) == pytest.approx(3)
        ((level, name, fields, request, body),) = told
        assert (level, name, body, request) == ("warning", "gunicorn.worker.loop_blocked", "event loop blocked", None)
        assert fields["lag_seconds"] == 3
        assert "watching.look(now)" in fields["code.stacktrace"]

    def test_further_episodes_are_counted_and_logged_now_and_then(self, told: list[tuple[Any, ...]]) -> None:
        before = counted(catalogue.WORKER_BLOCKED)
        clock = Clock()
        watching = watch.Watch(inside.Looping(SimpleNamespace()), 0.5, clock)
        now = time.monotonic()
        for episode in range(1, 4):
            clock.due = now - episode
            watching.look(now)
            watching.look(now + watch.AGAIN_SECONDS)
        assert counted(catalogue.WORKER_BLOCKED) == before + 3
        assert len(told) == 1
        watching._logged -= watch.LOGGED_SECONDS
        clock.due = now - 9
        watching.look(now)
        watching.look(now + watch.AGAIN_SECONDS)
        assert told[1][2]["episodes_not_logged"] == 2

    def test_a_loop_that_has_ended_is_not_late(self, told: list[tuple[Any, ...]]) -> None:
        clock = Clock()
        watching = watch.Watch(inside.Looping(SimpleNamespace()), 0.5, clock, runs=lambda: False)
        clock.due = time.monotonic() - 100
        for _ in range(3):
            watching.look(time.monotonic())
        assert told == []

    @pytest.mark.parametrize("blocked_seconds", [0.05, 0.5, 1.5])
    def test_a_process_that_stood_still_is_not_a_blocked_loop(
        self, told: list[tuple[Any, ...]], blocked_seconds: float
    ) -> None:
        """The clock is made up: the thread beside the loop is always the first to run after a stop."""
        before = counted(catalogue.WORKER_BLOCKED)
        clock = Clock()
        watching = watch.Watch(inside.Looping(SimpleNamespace()), blocked_seconds, clock)
        now = time.monotonic()
        for _ in range(20):
            clock.due = now + TICK_SECONDS  # the loop ticks
            asked = watching.look(now + 0.01)
            now += 3 + asked  # all of the process stops, while the thread sleeps
            assert watching.look(now) <= watch.AGAIN_SECONDS
            assert counted(catalogue.WORKER_LATE) == pytest.approx(now - clock.due), "late it is"
        assert (told, counted(catalogue.WORKER_BLOCKED)) == ([], before)
        watching.look(now + watch.AGAIN_SECONDS)
        assert (len(told), counted(catalogue.WORKER_BLOCKED)) == (1, before + 1), "a loop that goes on being late is"

    def test_a_loop_is_late_until_it_ticks(self) -> None:
        clock = Clock()
        watching = watch.Watch(inside.Looping(SimpleNamespace()), 0.5, clock)
        clock.begin()
        before = counted(catalogue.WORKER_LAG)
        now = time.monotonic()
        for seconds in (0.1, 0.4, 3.0, 6.0):
            clock.due = now - seconds
            watching.look(now)
            assert counted(catalogue.WORKER_LATE) == pytest.approx(seconds)
        assert counted(catalogue.WORKER_LAG) == before
        clock.tick()
        assert counted(catalogue.WORKER_LATE) == 0
        assert counted(catalogue.WORKER_LAG) >= before + 6
        watching.look(clock.due - 0.1)
        assert counted(catalogue.WORKER_LATE) == 0

    def test_a_tick_while_the_lateness_is_written_has_the_last_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        clock.due = time.monotonic() - 2
        shown: list[float] = []

        def ticking(value: float) -> None:
            shown.append(value)
            clock.due = time.monotonic() + TICK_SECONDS

        monkeypatch.setattr(clock, "_late", SimpleNamespace(set=ticking))
        clock.show_late(time.monotonic())
        assert shown == [pytest.approx(2, abs=0.5), 0]

    def test_the_request_of_a_stack_is_the_middlewares(self) -> None:
        request = context.RequestContext("ab" * 16, "cd" * 8, "01")
        scope = {"__name__": "observability.wsgi", "sys": sys}
        exec("def run(request, app):\n    return app()\n", scope)
        run: Callable[..., Any] = scope["run"]  # type: ignore[assignment]
        assert run(request, lambda: watch.request_of(sys._getframe())) is request
        assert watch.request_of(sys._getframe()) is None


class TestCollector:
    def test_its_time_is_counted_by_generation(self) -> None:
        collector = Collector()
        place = collector._places[2]
        before = STORE.cells[place]
        gc.callbacks.append(collector)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(collector)
        assert STORE.cells[place] > before

    def test_a_forked_child_writes_nothing_of_it(self) -> None:
        collector = Collector()
        collector._epoch = object()
        before = [STORE.cells[each] for each in collector._places]
        for phase in ("start", "stop"):
            collector(phase, {"generation": 2})
        assert [STORE.cells[each] for each in collector._places] == before


class TestInside:
    def test_each_class_is_known_by_what_it_descends_from(self) -> None:
        from gunicorn.workers import gasgi, ggevent, gthread, gtornado, sync
        from uvicorn_worker import UvicornH11Worker

        expected = [
            (sync.SyncWorker, inside.Inside),
            (gthread.ThreadWorker, inside.Gthread),
            (ggevent.GeventWorker, inside.Gevent),
            (ggevent.GeventPyWSGIWorker, inside.Gevent),
            (gasgi.ASGIWorker, inside.Asgi),
            (gtornado.TornadoWorker, inside.Tornado),
            (UvicornH11Worker, inside.Looping),
        ]
        for worker_class, kind in expected:
            own = type("Own", (worker_class,), {"__module__": "app", "__init__": lambda self: None})
            assert type(inside.of(own())) is kind

    def test_a_thread_pools_queue_is_read(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        gate = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            worker = SimpleNamespace(tpool=pool, keepalived_conns=[1, 2], pending_conns=[3])
            running = pool.submit(gate.wait, 20)
            wait_until(running.running, 5)
            for _ in range(3):
                pool.submit(int)
            found = inside.Gthread(worker)
            assert (found.queued(), found.kept()) == (3, 3)
            gate.set()

    def test_what_a_release_lacks_is_not_known(self) -> None:
        worker = SimpleNamespace(tpool=object())
        assert (inside.Gthread(worker).queued(), inside.Gthread(worker).kept()) == (None, None)
        assert inside.Asgi(worker).kept() is None
        gevent = inside.Gevent(worker)
        gevent._main = SimpleNamespace(gr_frame=None)
        assert not gevent.find_pools()
        assert gevent.kept() is None

    def test_connections_without_a_request_are_kept(self) -> None:
        before = STORE.cells[layout.ACTIVE]  # other tests of this process may have left responses open
        STORE.cells[layout.ACTIVE] = 2
        try:
            assert inside.Asgi(SimpleNamespace(nr_conns=5)).kept() == 3
            assert inside.Asgi(SimpleNamespace(nr_conns=0)).kept() == 0
        finally:
            STORE.cells[layout.ACTIVE] = before


def test_a_loop_is_told_of_once() -> None:
    called = []
    loops.on_first_loop.append(lambda: called.append(asyncio.get_running_loop()))

    async def twice() -> None:
        loops.entered()
        loops.entered()

    asyncio.run(twice())
    assert len(called) == 1


def test_a_failing_probe_is_counted_and_the_worker_serves() -> None:
    """In a process of its own: starting changes this one."""
    code = (
        "from observability import catalogue, probes, store\n"
        "probes.start(object()); probes.on_loop()\n"
        "probes.inside.of = None\n"
        "probes.start(object())\n"
        "print(store.STORE.cells[store.child(catalogue.HOOK_FAILURES, 'probes').bind()[0]])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1.0"


def test_a_page_tells_one_number_and_none_where_nothing_is_said() -> None:
    page = Page()
    page.put(catalogue.WORKER_CPU, 3.0, "user", worker="1")
    page.put(catalogue.LISTEN_OVERFLOWS, 4.0)
    assert page.value(catalogue.WORKER_CPU, "user", worker="1") == 3
    assert page.value(catalogue.LISTEN_OVERFLOWS) == 4
    assert page.value(catalogue.WORKER_CPU, "user", worker="2") is None
    assert page.value(catalogue.WORKER_CPU, "system", worker="1") is None
    assert page.value(catalogue.WORKERS, "live") is None
