"""The pool's contract, on greenlets and on threads.

Jobs wait on waiters of the pool, so the same test holds for both.  The test itself is the main
greenlet on the hub's thread; it lets the hub run until something is so, within a deadline.
"""

import gc
import threading
import time

import gevent
import greenlet
import pytest

from gpulse.worker import greenlets
from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.threads import ThreadPool

SIZE = 3
DEADLINE = 10.0


def until(condition):
    """Let the hub run until ``condition()`` is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        gevent.sleep(0.001)


def settle():
    """Let whatever is about to happen happen."""
    for _ in range(20):
        gevent.sleep(0.001)


class Bench:
    """A pool and jobs that wait for leave to end."""

    def __init__(self, kind, size=SIZE):
        self.retired = []
        self.pool = kind(size, lambda: self.retired.append(self.me()))
        self.kind = kind
        self.running = []
        self.done = []
        self.members = {}
        self.most = 0
        self.gates = {}

    def me(self):
        return greenlet.getcurrent() if self.kind is GreenletPool else threading.get_ident()

    def submit(self, *names):
        """Submit jobs that run until :meth:`let` names them."""
        for name in names:
            self.gates[name] = self.pool.waiter()
            self.on_hub(self.pool.submit, self.job(name))

    def on_hub(self, call, *args):
        """As the server does: from a callback of the hub."""
        gevent.get_hub().loop.run_callback(call, *args)
        gevent.sleep(0)

    def job(self, name):
        def run():
            self.running.append(name)
            self.members[name] = self.me()
            self.most = max(self.most, len(self.running))
            assert self.gates[name].wait(DEADLINE)
            self.running.remove(name)
            self.done.append(name)

        return run

    def let(self, *names):
        for name in names:
            self.on_hub(self.gates[name].set)
            until(lambda name=name: name in self.done)

    @property
    def counts(self):
        pool = self.pool
        return {"busy": pool.busy, "queued": pool.queued, "detached": pool.detached}

    def finish(self):
        """Let all jobs end and see that the counts are back."""
        for gate in self.gates.values():
            self.on_hub(gate.set)
        until(lambda: self.counts == {"busy": 0, "queued": 0, "detached": 0})


IDLE = {"busy": 0, "queued": 0, "detached": 0}


@pytest.fixture(params=[GreenletPool, ThreadPool], ids=["greenlets", "threads"])
def bench(request):
    bench = Bench(request.param)
    yield bench
    bench.finish()


class TestTheBound:
    def test_no_more_jobs_run_at_once_than_the_size(self, bench):
        names = list(range(SIZE * 3))
        bench.submit(*names)
        until(lambda: len(bench.running) == SIZE)
        settle()
        assert bench.counts == {"busy": SIZE, "queued": SIZE * 2, "detached": 0}
        for name in names:
            bench.let(name)
        assert bench.most == SIZE
        assert bench.pool.alive == SIZE

    def test_jobs_begin_in_the_order_in_which_they_were_submitted(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        bench.submit(*"defgh")
        for name in "abcdefgh":
            until(lambda name=name: name in bench.running)
            bench.let(name)
        assert bench.done == list("abcdefgh")

    def test_a_member_is_made_only_when_none_is_idle(self, bench):
        for name in range(10):
            bench.submit(name)
            until(lambda name=name: name in bench.running)
            bench.let(name)
            until(lambda: bench.pool.busy == 0)
        assert bench.pool.alive == 1

    def test_many_quick_jobs_all_run(self, bench):
        done = []
        for number in range(500):
            bench.on_hub(bench.pool.submit, lambda number=number: done.append(number))
        until(lambda: len(done) == 500)
        until(lambda: bench.counts == IDLE)

    def test_jobs_submitted_by_members_run_too(self, bench):
        done = []

        def job(depth):
            done.append(depth)
            if depth:
                for _ in range(2):
                    bench.pool.submit(lambda: job(depth - 1))

        bench.on_hub(bench.pool.submit, lambda: job(5))
        until(lambda: len(done) == 2**6 - 1)

    def test_members_that_submit_without_end_do_not_starve_the_hub(self, bench):
        going = [True]
        count = [0]

        def again():
            count[0] += 1
            if going[0]:
                bench.pool.submit(again)

        bench.on_hub(bench.pool.submit, again)
        try:
            turns = 0
            deadline = time.monotonic() + DEADLINE
            while turns < 20 or count[0] < 20:
                assert time.monotonic() < deadline
                gevent.sleep(0.001)
                turns += 1
        finally:
            going[0] = False


class TestCancel:
    def test_a_job_that_waits_can_be_taken_back_once(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        ran = []
        waiting = lambda: ran.append(1)  # noqa: E731 - cancel wants the same object
        bench.on_hub(bench.pool.submit, waiting)
        assert bench.pool.cancel(waiting) is True
        assert bench.pool.cancel(waiting) is False
        bench.let(*"abc")
        settle()
        assert ran == []

    def test_a_job_that_has_begun_cannot(self, bench):
        job = bench.job("a")
        bench.gates["a"] = bench.pool.waiter()
        bench.on_hub(bench.pool.submit, job)
        until(lambda: "a" in bench.running)
        assert bench.pool.cancel(job) is False


class TestDetach:
    def test_a_member_that_leaves_the_bound_frees_its_place(self, bench):
        gate = bench.gates["away"] = bench.pool.waiter()
        left = []

        def stay():
            bench.pool.detach()
            bench.pool.detach()  # twice is once
            left.append(1)
            assert gate.wait(DEADLINE)
            bench.done.append("away")

        bench.submit(*"ab")
        bench.on_hub(bench.pool.submit, stay)
        until(lambda: left)
        bench.submit(*"cd")
        until(lambda: "c" in bench.running)
        settle()
        assert sorted(bench.running) == ["a", "b", "c"]
        assert bench.counts == {"busy": 3, "queued": 1, "detached": 1}
        bench.let("away")
        until(lambda: bench.pool.detached == 0)
        bench.let(*"abcd")
        assert bench.most == SIZE
        until(lambda: bench.pool.alive == SIZE)
        assert len(bench.retired) == 1

    def test_a_job_that_waited_begins_when_a_member_leaves(self, bench):
        gate, go = bench.pool.waiter(), bench.pool.waiter()
        bench.gates["gate"], bench.gates["go"] = gate, go

        def stay():
            assert go.wait(DEADLINE)
            bench.pool.detach()
            assert gate.wait(DEADLINE)

        bench.submit(*"ab")
        bench.on_hub(bench.pool.submit, stay)
        until(lambda: bench.pool.busy == SIZE)
        bench.submit("c")
        assert bench.pool.queued == 1
        bench.on_hub(go.set)
        until(lambda: "c" in bench.running)

    def test_many_can_be_away_at_once(self, bench):
        gate = bench.gates["gate"] = threading.Event()
        gates = []

        def stay():
            bench.pool.detach()
            waiter = bench.pool.waiter()
            gates.append(waiter)
            assert waiter.wait(DEADLINE)

        for _ in range(SIZE * 4):
            bench.on_hub(bench.pool.submit, stay)
        until(lambda: bench.pool.detached == SIZE * 4)
        assert bench.pool.busy == 0
        bench.submit("a")
        until(lambda: "a" in bench.running)
        for waiter in gates:
            bench.on_hub(waiter.set)
        until(lambda: bench.pool.detached == 0)
        assert gate is not None


class TestFaults:
    @pytest.mark.parametrize(
        "error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), greenlet.GreenletExit()]
    )
    def test_a_job_that_raises_harms_nobody(self, bench, error, caplog):
        def fail():
            raise error

        for _ in range(SIZE * 4):
            bench.on_hub(bench.pool.submit, fail)
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        assert bench.pool.busy == SIZE
        bench.let(*"abc")
        until(lambda: bench.counts == IDLE)

    def test_jobs_that_wait_behind_one_that_raises_still_run(self, bench):
        gate = bench.gates["gate"] = bench.pool.waiter()

        def fail():
            assert gate.wait(DEADLINE)
            raise greenlet.GreenletExit

        for _ in range(SIZE):
            bench.on_hub(bench.pool.submit, fail)
        until(lambda: bench.pool.busy == SIZE)
        bench.submit("a")
        assert bench.pool.queued == 1
        bench.on_hub(gate.set)
        until(lambda: "a" in bench.running)

    def test_a_call_to_the_hub_that_raises_harms_no_other(self, bench, caplog):
        called = []

        def job():
            try:
                bench.pool.call_hub(lambda: 1 // 0)
            except ZeroDivisionError:
                called.append("raised here")  # on greenlets the call is made at once
            bench.pool.call_hub(called.append, "second")

        bench.on_hub(bench.pool.submit, job)
        until(lambda: "second" in called)


class TestTheHub:
    def test_calls_from_members_are_made_on_the_hubs_thread_in_order(self, bench):
        calls, threads = [], set()

        def call(number):
            calls.append(number)
            threads.add(threading.get_ident())

        def job():
            for number in range(100):
                bench.pool.call_hub(call, number)

        bench.on_hub(bench.pool.submit, job)
        until(lambda: len(calls) == 100)
        assert calls == list(range(100))
        assert threads == {threading.get_ident()}

    def test_a_call_from_the_hub_itself_is_made_at_once(self, bench):
        calls = []
        bench.pool.call_hub(calls.append, 1)
        assert calls == [1]

    def test_a_waiter_says_whether_it_was_set_in_time(self, bench):
        answers = []

        def job():
            late = bench.pool.waiter()
            answers.append(late.wait(0.01))
            soon = bench.pool.waiter()
            bench.pool.call_hub(soon.set)
            answers.append(soon.wait(DEADLINE))

        bench.on_hub(bench.pool.submit, job)
        until(lambda: len(answers) == 2)
        assert answers == [False, True]

    def test_a_waiter_that_was_set_before_does_not_wait(self, bench):
        answers = []

        def job():
            waiter = bench.pool.waiter()
            waiter.set()
            answers.append(waiter.wait(0))

        bench.on_hub(bench.pool.submit, job)
        until(lambda: answers == [True])

    def test_the_hub_runs_while_members_wait(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        ticks = []
        gevent.get_hub().loop.run_callback(ticks.append, 1)
        until(lambda: ticks)


class TestFiles:
    def test_a_call_for_a_disk_runs_elsewhere_and_its_result_comes_to_the_hub(self, bench):
        results = []

        def call(a, b):
            return a + b, threading.get_ident()

        def done(tag, result, error):
            results.append((tag, *result, error, threading.get_ident()))

        bench.pool.in_file_thread(call, (1, 2), done, "tag")
        until(lambda: results)
        ((tag, total, worked, error, told),) = results
        assert (tag, total, error) == ("tag", 3, None)
        assert worked != told == threading.get_ident()

    def test_an_error_of_the_disk_is_handed_over(self, bench):
        results = []

        def call():
            raise OSError(28, "No space left on device")

        bench.pool.in_file_thread(call, (), lambda *outcome: results.append(outcome))
        until(lambda: results)
        assert results[0][0] is None
        assert results[0][1].errno == 28

    def test_a_member_gets_the_result_of_a_call_that_may_wait(self, bench):
        results = []
        bench.on_hub(
            bench.pool.submit, lambda: results.append(bench.pool.blocking(lambda a: a * 2, 21))
        )
        until(lambda: results == [42])

    def test_an_error_of_such_a_call_is_raised_on_the_member(self, bench):
        caught = []

        def fail():
            raise OSError("disk")

        def job():
            try:
                bench.pool.blocking(fail)
            except OSError as error:
                caught.append(str(error))

        bench.on_hub(bench.pool.submit, job)
        until(lambda: caught == ["disk"])


class TestServices:
    def test_they_run_beside_a_pool_that_is_full(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        ran = []
        bench.pool.spawn(ran.append, 1)
        until(lambda: ran == [1])
        assert bench.pool.busy == SIZE


class TestGreenlets:
    """What only greenlets promise."""

    @pytest.fixture
    def bench(self):
        bench = Bench(GreenletPool)
        yield bench
        bench.finish()

    def test_the_member_that_was_idle_last_is_used_first(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        bench.let("b")
        bench.let("a")
        bench.submit("d")
        until(lambda: "d" in bench.running)
        assert bench.members["d"] is bench.members["a"]
        bench.submit("e")
        until(lambda: "e" in bench.running)
        assert bench.members["e"] is bench.members["b"]

    def test_a_job_from_the_hub_starts_at_once_if_a_member_is_free(self, bench):
        seen = []

        def submit():
            bench.pool.submit(lambda: seen.append("job"))
            seen.append("behind it")

        bench.on_hub(submit)
        assert seen == ["job", "behind it"]

    def test_members_idle_for_long_end_and_close_what_they_hold(self, bench):
        bench.submit(*"abc")
        until(lambda: len(bench.running) == SIZE)
        bench.let(*"ab")
        now = time.monotonic()
        bench.on_hub(bench.pool.retire_idle, now + greenlets.IDLE_SECONDS - 1)
        assert bench.pool.alive == SIZE
        bench.on_hub(bench.pool.retire_idle, now + greenlets.IDLE_SECONDS + 1)
        assert bench.pool.alive == 1
        assert set(bench.retired) == {bench.members["a"], bench.members["b"]}
        bench.submit(*"de")
        until(lambda: len(bench.running) == SIZE)

    def test_only_those_idle_for_long_end(self, bench):
        moment = time.monotonic()
        bench.submit(*"ab")
        gevent.sleep(0)
        for name in "ab":
            bench.on_hub(bench.pool.retire_idle, moment)  # as the worker's tick: it tells the time
            bench.on_hub(bench.gates[name].set)
            settle()
            moment += 20
        bench.on_hub(bench.pool.retire_idle, moment)
        assert bench.retired == [bench.members["a"]]

    def test_a_member_that_cannot_close_what_it_holds_still_ends(self, caplog):
        pool = GreenletPool(1, lambda: 1 // 0)
        hub = gevent.get_hub()
        hub.loop.run_callback(pool.submit, lambda: None)
        gevent.sleep(0)
        hub.loop.run_callback(pool.retire_idle, time.monotonic() + 1000)
        gevent.sleep(0)
        assert pool.alive == 0
        assert "pool greenlet" in caplog.text

    def test_members_are_kept_alive_by_the_pool_and_freed_with_their_end(self, bench):
        bench.submit("a")
        bench.let("a")
        gc.collect()
        assert bench.pool.alive == 1
        bench.on_hub(bench.pool.retire_idle, time.monotonic() + 1000)
        assert bench.members["a"].dead


class TestThreads:
    """What only threads promise."""

    def test_jobs_may_be_submitted_from_any_thread(self):
        bench = Bench(ThreadPool)
        done = []

        def submit():
            for number in range(100):
                bench.pool.submit(lambda number=number: done.append(number))

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(done) == 400)
        for thread in threads:
            thread.join(DEADLINE)
        until(lambda: bench.counts == IDLE)

    def test_threads_stay(self):
        bench = Bench(ThreadPool)
        bench.submit("a")
        bench.let("a")
        bench.pool.retire_idle(time.monotonic() + 1000)
        settle()
        assert bench.pool.alive == 1
