"""Handshakes in the pool: behind pages, never starved, with half of the members at most."""

import logging
import socket
import time

import gevent
import greenlet
import pytest
from contract.test_pools import IDLE, SIZE, Bench, settle, until

from gpulse.worker.greenlets import SLICE, GreenletPool
from gpulse.worker.threads import ThreadPool

SHARE = SIZE // 2


@pytest.fixture(params=[GreenletPool, ThreadPool], ids=["greenlets", "threads"])
def bench(request):
    bench = Bench(request.param)
    yield bench
    bench.finish()


def shake(bench, *names):
    """Submit handshakes that run until ``let`` names them."""
    for name in names:
        bench.gates[name] = bench.pool.waiter()
        bench.on_hub(bench.pool.submit_handshake, bench.job(name))


class TestBoth:
    def test_they_all_run_in_order(self, bench):
        done = []
        for number in range(100):
            bench.on_hub(bench.pool.submit_handshake, lambda number=number: done.append(number))
        until(lambda: len(done) == 100)
        assert done == list(range(100))
        until(lambda: bench.counts == IDLE)
        assert not bench.pool.has_waiting

    def test_pages_that_come_later_go_before_them(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        shake(bench, "h")
        bench.submit(*"def")
        assert (bench.pool.queued, bench.pool.handshakes) == (4, 1)
        bench.let(*"abc")
        until(lambda: sorted(bench.running) == ["d", "e", "f"])
        settle()
        assert bench.pool.handshakes == 1
        bench.let("d")
        until(lambda: "h" in bench.running)

    def test_pages_without_end_do_not_starve_them(self, bench):
        going, done = [True], []

        def page():
            bench.pool.waiter().wait(0.001)
            if going[0]:
                bench.pool.submit(page)

        for _ in range(SIZE * 4):  # so that some always wait for a member
            bench.on_hub(bench.pool.submit, page)
        for number in range(50):
            bench.on_hub(bench.pool.submit_handshake, lambda number=number: done.append(number))
        try:
            until(lambda: len(done) == 50)
        finally:
            going[0] = False

    def test_they_leave_members_for_pages(self, bench):
        shake(bench, *"ghi")
        until(lambda: len(bench.running) == SHARE)
        settle()
        assert bench.running == ["g"]
        assert bench.counts == {"busy": SHARE, "queued": 2, "detached": 0}
        assert bench.pool.has_waiting
        bench.submit("a")
        until(lambda: "a" in bench.running)
        for name, behind in ("gh", "hi"):
            bench.let(name)
            until(lambda behind=behind: behind in bench.running)

    def test_one_that_waits_can_be_taken_back(self, bench):
        shake(bench, "g")
        until(lambda: bench.running == ["g"])
        ran = []
        waiting = lambda: ran.append(1)  # noqa: E731 - cancel wants the same object
        bench.on_hub(bench.pool.submit_handshake, waiting)
        assert bench.pool.cancel(waiting) is True
        assert bench.pool.cancel(waiting) is False
        bench.let("g")
        settle()
        assert ran == []

    def test_one_whose_member_leaves_the_bound_makes_room(self, bench):
        left = []

        def stay():
            bench.pool.detach()
            left.append(1)
            assert gate.wait(10)

        gate = bench.gates["away"] = bench.pool.waiter()
        for _ in range(SHARE * 3):
            bench.on_hub(bench.pool.submit_handshake, stay)
        until(lambda: len(left) == SHARE * 3)
        bench.on_hub(gate.set)

    def test_a_helper_takes_the_member_out(self, bench):
        members = []
        shake(bench, "g")
        until(lambda: bench.running == ["g"])
        members.append(bench.members["g"])
        shake(bench, "h")
        settle()
        assert bench.running == ["g"]
        bench.pool.detach(members[0])
        until(lambda: bench.running == ["g", "h"])

    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), greenlet.GreenletExit()])
    def test_one_that_raises_makes_room(self, bench, error, caplog):
        def fail():
            raise error

        caplog.set_level(logging.CRITICAL, "gpulse")
        for _ in range(SIZE * 4):
            bench.on_hub(bench.pool.submit_handshake, fail)
        shake(bench, "g")
        until(lambda: bench.running == ["g"])


class TestGreenlets:
    """What only greenlets promise."""

    @pytest.fixture
    def bench(self):
        bench = Bench(GreenletPool, 100)
        yield bench
        bench.finish()

    def test_the_hub_reads_and_sends_between_each_few(self, bench):
        """Each of them works for longer than a slice: then each turn starts one."""
        loop = gevent.get_hub().loop
        ours, its = socket.socketpair()
        seen = []

        def handshake():
            begun = time.monotonic()
            while time.monotonic() - begun < SLICE:
                pass
            seen.append("handshake")

        def readable():
            seen.append("read")
            loop.run_callback(seen.append, "send")

        its.send(b"x")  # and nobody takes it
        reader = loop.io(ours.fileno(), 1)
        reader.start(readable)
        for _ in range(20):
            loop.run_callback(bench.pool.submit_handshake, handshake)
        until(lambda: seen.count("handshake") == 20)
        reader.stop()
        reader.close()
        ours.close()
        its.close()
        first = seen.index("handshake")
        cycle = ["handshake", "read", "send"]
        assert seen[first : first + 60] == (cycle * 20)[: len(seen) - first]

    def test_those_that_wait_for_a_member_cost_the_hub_nothing(self, bench):
        turns = []
        bench.submit(*range(100))
        watcher = gevent.get_hub().loop.prepare()
        shake(bench, "g", "h")
        settle()
        watcher.start(lambda: turns.append(1))
        gevent.sleep(0.1)
        watcher.stop()
        watcher.close()
        assert len(turns) < 10
        assert bench.pool.handshakes == 2

    def test_one_that_is_interrupted_makes_room(self, caplog):
        class Stopped(BaseException):
            pass

        caplog.set_level(logging.CRITICAL, "gpulse")
        bench = Bench(GreenletPool, 1)
        job = bench.job("g")
        bench.gates["g"] = bench.pool.waiter()
        bench.on_hub(bench.pool.submit_handshake, job)
        until(lambda: bench.running == ["g"])
        shake(bench, "h")
        bench.on_hub(bench.pool.interrupt, job, Stopped())
        until(lambda: "h" in bench.running)
        bench.let("h")
