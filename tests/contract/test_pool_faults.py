"""What jobs leave behind, and a machine without room: the pool's counts stay true."""

import logging
import threading

import gevent
import pytest
from contract.test_pools import IDLE, Bench, settle, until

from gpulse.worker import threads
from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.threads import ThreadPool


@pytest.fixture(params=[GreenletPool, ThreadPool], ids=["greenlets", "threads"])
def bench(request):
    return Bench(request.param)


@pytest.mark.parametrize("thrown", [gevent.Timeout, gevent.GreenletExit, ValueError])
def test_what_a_job_left_behind_comes_to_its_idle_greenlet(thrown, caplog):
    bench = Bench(GreenletPool)
    bench.submit("a")
    member = bench.members["a"]
    bench.let("a")
    bench.on_hub(member.throw, thrown)
    bench.on_hub(member.switch)  # a wake-up that nobody awaits any more
    settle()
    assert not member.dead
    bench.submit("b")
    assert bench.running == ["b"]
    bench.let("b")
    assert bench.counts == IDLE
    assert bench.pool.alive == 1
    assert "did not end it" in caplog.text


def test_a_helper_may_take_its_member_out_of_the_bound(bench):
    members, done = [], bench.pool.waiter()

    def job():
        members.append(bench.pool.member())
        assert done.wait(10)

    bench.on_hub(bench.pool.submit, job)
    until(lambda: members)
    bench.pool.detach(members[0])
    bench.pool.detach(members[0])  # twice is once
    assert bench.counts == {"busy": 0, "queued": 0, "detached": 1}
    bench.on_hub(done.set)
    until(lambda: bench.counts == IDLE)
    assert bench.pool.alive == 0


def test_no_thread_can_be_started(monkeypatch, caplog):
    bench = Bench(ThreadPool, 2)
    bench.submit("a")
    until(lambda: bench.running == ["a"])

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        bench.submit("b")
    assert bench.pool.alive == 1
    assert "can't start new thread" in caplog.text
    bench.let("a")
    until(lambda: bench.running == ["b"])  # by the thread that there is
    bench.let("b")
    until(lambda: bench.counts == IDLE)


def test_threads_wait_for_a_hub_that_does_not_keep_up(monkeypatch):
    monkeypatch.setattr(threads, "HUB_CALLS", 10)
    bench = Bench(ThreadPool)
    seen, most = [], []

    def job():
        for number in range(200):
            bench.pool.call_hub(seen.append, number)
            most.append(len(bench.pool._hub_calls))

    bench.pool.submit(job)
    until(lambda: len(seen) == 200)
    assert seen == list(range(200))
    assert max(most) <= 10


@pytest.mark.parametrize("error", [OSError("full"), ValueError("closed")])
def test_a_call_on_a_file_thread_that_fails_is_answered(bench, error):
    answers = []

    def call():
        raise error

    bench.on_hub(bench.pool.in_file_thread, call, (), lambda *answer: answers.append(answer), 1)
    until(lambda: answers)
    assert answers == [(1, None, error)]


def test_more_calls_than_file_threads(bench):
    answers, leave = [], threading.Event()
    for number in range(40):
        bench.on_hub(
            bench.pool.in_file_thread, leave.wait, (10,), lambda *got: answers.append(got), number
        )
    leave.set()
    until(lambda: len(answers) == 40)
    assert sorted(answers) == [(number, True, None) for number in range(40)]


@pytest.fixture(autouse=True)
def loud(caplog):
    caplog.set_level(logging.WARNING, "gpulse")
