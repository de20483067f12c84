"""One job of a pool is stopped where it waits, and nothing else: on greenlets; on threads, what is
not done.  And the stack of a job, on both."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import gevent
import greenlet
import pytest
from contract.test_pools import DEADLINE, IDLE, SIZE, Bench, settle, until

from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.stack import FRAMES
from gpulse.worker.threads import ThreadPool

ROOT = Path(__file__).resolve().parents[2]


class Stopped(BaseException):
    """What is raised."""


class Waits:
    """A job that waits until it is let go; remembers what came to it."""

    def __init__(self, bench, name="a", catches=0):
        self.bench = bench
        self.name = name
        self.gate = bench.gates[name] = bench.pool.waiter()
        self.catches = catches
        self.caught = []
        self.ended = False

    def __call__(self):
        self.bench.running.append(self.name)
        self.bench.members[self.name] = self.bench.me()
        try:
            while True:
                try:
                    assert self.gate.wait(DEADLINE)
                    break
                except Stopped as error:
                    self.caught.append(error)
                    if len(self.caught) > self.catches:
                        raise
        finally:
            self.bench.running.remove(self.name)
            self.ended = True


def interrupt(bench, job, error=None):
    """From the hub, as the deadline wheel does."""
    answers = []
    bench.on_hub(lambda: answers.append(bench.pool.interrupt(job, error or Stopped())))
    return answers[0]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The jobs here let out what is raised in them, and the pool logs that."""
    caplog.set_level(logging.CRITICAL, "gpulse")


@pytest.fixture
def greenlets():
    bench = Bench(GreenletPool)
    yield bench
    bench.finish()


@pytest.fixture(params=[GreenletPool, ThreadPool], ids=["greenlets", "threads"])
def bench(request):
    bench = Bench(request.param)
    yield bench
    bench.finish()


def start(bench, *jobs):
    for job in jobs:
        bench.on_hub(bench.pool.submit, job)
    until(lambda: all(job.name in bench.running for job in jobs))


class TestGreenlets:
    def test_the_error_is_raised_where_the_job_waits(self, greenlets):
        job, error = Waits(greenlets), Stopped()
        start(greenlets, job)
        assert interrupt(greenlets, job, error) is True
        assert job.caught == [error]
        assert job.ended
        assert greenlets.counts == IDLE

    def test_other_jobs_go_on(self, greenlets):
        jobs = [Waits(greenlets, name) for name in "abc"]
        start(greenlets, *jobs)
        assert interrupt(greenlets, jobs[1])
        settle()
        assert greenlets.running == ["a", "c"]
        assert [len(job.caught) for job in jobs] == [0, 1, 0]
        assert greenlets.counts == {"busy": 2, "queued": 0, "detached": 0}

    def test_its_member_ends_and_closes_what_it_holds(self, greenlets):
        job = Waits(greenlets)
        start(greenlets, job)
        member = greenlets.members["a"]
        interrupt(greenlets, job)
        assert member.dead
        assert greenlets.retired == [member]
        assert greenlets.pool.alive == 0

    def test_its_place_is_taken_by_a_job_that_waited(self, greenlets):
        jobs = [Waits(greenlets, name) for name in "abc"]
        start(greenlets, *jobs)
        behind = Waits(greenlets, "d")
        greenlets.on_hub(greenlets.pool.submit, behind)
        assert greenlets.pool.queued == 1
        interrupt(greenlets, jobs[0])
        until(lambda: "d" in greenlets.running)
        assert greenlets.members["d"] is not greenlets.members["a"]
        assert greenlets.pool.alive == SIZE

    def test_again_and_again_the_pool_keeps_its_size(self, greenlets):
        for _ in range(20):
            jobs = [Waits(greenlets, name) for name in "abc"]
            start(greenlets, *jobs)
            for job in jobs:
                assert interrupt(greenlets, job)
            assert greenlets.counts == IDLE
        start(greenlets, *[Waits(greenlets, name) for name in "abc"])
        assert greenlets.pool.alive == SIZE
        assert greenlets.most <= SIZE

    def test_a_job_that_catches_it_can_be_interrupted_again(self, greenlets):
        job = Waits(greenlets, catches=2)
        start(greenlets, job)
        member = greenlets.members["a"]
        assert interrupt(greenlets, job)
        assert interrupt(greenlets, job)
        assert greenlets.running == ["a"]
        assert greenlets.counts == {"busy": 1, "queued": 0, "detached": 0}
        assert interrupt(greenlets, job)
        assert len(job.caught) == 3
        assert member.dead

    def test_the_member_of_a_job_that_goes_on_ends_with_it(self, greenlets):
        job = Waits(greenlets, catches=1)
        start(greenlets, job)
        member = greenlets.members["a"]
        interrupt(greenlets, job)
        assert not member.dead
        greenlets.on_hub(job.gate.set)
        until(lambda: job.ended)
        assert member.dead
        assert greenlets.retired == [member]

    def test_a_job_that_waits_in_the_queue_is_left_there(self, greenlets):
        start(greenlets, *[Waits(greenlets, name) for name in "abc"])
        behind = Waits(greenlets, "d")
        greenlets.on_hub(greenlets.pool.submit, behind)
        assert interrupt(greenlets, behind) is False
        assert greenlets.pool.cancel(behind) is True

    def test_a_job_that_is_over_is_not_mixed_up_with_the_next_on_its_member(self, greenlets):
        first = Waits(greenlets, "a")
        start(greenlets, first)
        greenlets.on_hub(first.gate.set)
        until(lambda: first.ended)
        assert interrupt(greenlets, first) is False  # its member is idle
        second = Waits(greenlets, "b")
        start(greenlets, second)
        assert greenlets.members["a"] is greenlets.members["b"]
        assert interrupt(greenlets, first) is False
        assert second.caught == []
        assert greenlets.running == ["b"]

    def test_a_job_that_was_never_submitted(self, greenlets):
        assert interrupt(greenlets, Waits(greenlets)) is False

    def test_a_member_that_left_the_bound_is_not_interrupted(self, greenlets):
        job = Waits(greenlets)
        start(greenlets, job)
        greenlets.on_hub(greenlets.pool.detach, greenlets.members["a"])
        assert interrupt(greenlets, job) is False
        assert job.caught == []
        assert greenlets.running == ["a"]

    def test_an_interrupted_job_may_still_leave_the_bound(self, greenlets):
        job = Waits(greenlets, catches=1)
        start(greenlets, job)
        interrupt(greenlets, job)
        greenlets.on_hub(greenlets.pool.detach, greenlets.members["a"])
        assert greenlets.counts == {"busy": 0, "queued": 0, "detached": 1}
        greenlets.on_hub(job.gate.set)
        until(lambda: greenlets.counts == IDLE)
        assert greenlets.pool.alive == 0

    @pytest.mark.parametrize("error", [gevent.GreenletExit(), SystemExit(1), ValueError("x")])
    def test_any_error_keeps_the_counts(self, greenlets, error):
        start(greenlets, Waits(greenlets), Waits(greenlets, "b"))
        job = Waits(greenlets, "c")
        start(greenlets, job)
        assert interrupt(greenlets, job, error)
        assert greenlets.counts == {"busy": 2, "queued": 0, "detached": 0}
        assert greenlets.pool.alive == 2

    def test_an_inner_greenlet_that_comes_back_late_meets_no_other_job(self, greenlets):
        """A job may wait by way of a greenlet of its own, as SQLAlchemy's asyncio bridge does."""
        came_back = []

        def job():
            def inner():
                gevent.sleep(0.02)
                came_back.append(1)

            greenlet.greenlet(inner).switch()

        greenlets.on_hub(greenlets.pool.submit, job)
        assert interrupt(greenlets, job)
        other = Waits(greenlets, "b")
        start(greenlets, other)
        until(lambda: came_back)
        settle()
        assert greenlets.running == ["b"]
        assert greenlets.counts == {"busy": 1, "queued": 0, "detached": 0}

    def test_in_each_thing_that_it_may_wait_in(self):
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("interrupt_site.py")],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert len(seen) >= 10
        one_idle_member = [0, 0, 0, 1]
        assert seen == {
            thing: {
                "interrupted": True,
                "came": ["Stopped"],
                "stale": False,
                "counts": one_idle_member,
                "works": True,
            }
            for thing in seen
        }


class TestThreads:
    def test_a_thread_is_not_stopped(self):
        bench = Bench(ThreadPool)
        job = Waits(bench)
        start(bench, job)
        assert interrupt(bench, job) is False
        settle()
        assert bench.running == ["a"]
        assert job.caught == []
        assert bench.counts == {"busy": 1, "queued": 0, "detached": 0}
        bench.finish()
        assert bench.pool.alive == 1


def the_view(job):
    job()


class TestTheStack:
    def stack_of(self, bench, job):
        stacks = []
        bench.on_hub(lambda: stacks.append(bench.pool.stack_of(job)))
        return stacks[0]

    def test_it_ends_where_the_job_is(self, bench):
        waits = Waits(bench)

        def job():
            the_view(waits)

        bench.on_hub(bench.pool.submit, job)
        until(lambda: bench.running == ["a"])
        lines = self.stack_of(bench, job).splitlines()
        in_view = next(n for n, line in enumerate(lines) if line.endswith("in the_view"))
        assert lines[in_view].startswith(f'  File "{__file__}", line ')
        assert lines[in_view + 1] == "    job()"
        functions = [line.rpartition(" in ")[2] for line in lines if line.startswith("  File ")]
        assert functions.index("the_view") < functions.index("Waits.__call__")
        assert "Traceback" not in lines[0]

    def test_nothing_of_a_job_that_does_not_run(self, bench):
        job = Waits(bench)
        assert self.stack_of(bench, job) == ""
        start(bench, job)
        assert self.stack_of(bench, job)
        start(bench, *[Waits(bench, name) for name in "bc"])
        behind = Waits(bench, "d")
        bench.on_hub(bench.pool.submit, behind)
        assert self.stack_of(bench, behind) == ""
        bench.on_hub(job.gate.set)
        until(lambda: job.ended and "d" in bench.running)
        assert self.stack_of(bench, job) == ""
        assert self.stack_of(bench, behind)

    def test_it_is_bounded(self, bench):
        waits = Waits(bench)

        def job(depth=FRAMES * 3):
            if depth:
                job(depth - 1)
            else:
                waits()

        bench.on_hub(bench.pool.submit, job)
        until(lambda: bench.running == ["a"])
        lines = self.stack_of(bench, job).splitlines()
        assert sum(line.startswith("  File ") for line in lines) == FRAMES
        assert lines[0].startswith("  ... ")
        assert any("in Waits.__call__" in line for line in lines)

    def test_a_job_that_runs_on_meanwhile_has_a_stack_too(self):
        bench = Bench(ThreadPool)
        going = threading.Event()
        stop = threading.Event()

        def job():
            going.set()
            while not stop.is_set():
                sum(range(100))

        bench.pool.submit(job)
        assert going.wait(DEADLINE)
        for _ in range(50):
            assert "job" in bench.pool.stack_of(job)
        stop.set()
        until(lambda: bench.counts == IDLE)
        assert bench.pool.stack_of(job) == ""
