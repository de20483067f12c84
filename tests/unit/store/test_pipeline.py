"""gpulse/store/pipeline.py: whose a reply is, who leads, and what fails together.

The server is a fake socket that answers what it was sent when it is read; callers are real threads,
held where a test wants them.
"""

import threading
from collections.abc import Callable

import hiredis
import pytest

from gpulse.store.endpoint import Endpoint
from gpulse.store.ledger import pack
from gpulse.store.link import AwayError, Link
from gpulse.store.pipeline import MAX_WAITING_BYTES, BusyError, Lines, Pipeline

WAIT = 5.0


class FakeSocket:
    """Answers ECHO with its word; other words are done by ``special``."""

    def __init__(self, special: dict[bytes, Callable[[], bytes]]) -> None:
        self.writes: list[bytes] = []
        self.closed = False
        self.ended = False
        self._owed = b""
        self._timeout = 1.0
        self._special = special
        self._reader = hiredis.Reader()

    def settimeout(self, seconds: float) -> None:
        self._timeout = seconds

    def sendall(self, data: bytes) -> None:
        if self.closed:
            raise OSError("it is closed")
        self.writes.append(data)
        self._reader.feed(data)
        while (words := self._reader.gets()) is not False:
            reply = self._special.get(words[0])
            self._owed += b"+%s\r\n" % words[1] if reply is None else reply()

    def recv(self, size: int) -> bytes:
        if self._timeout == 0.0:
            if self.ended:
                return b""
            raise BlockingIOError
        data, self._owed = self._owed[:size], self._owed[size:]
        if not data:
            raise TimeoutError
        return data

    def close(self) -> None:
        self.closed = True


class FakeRoute:
    probe = b""

    def __init__(self) -> None:
        self.special: dict[bytes, Callable[[], bytes]] = {}
        self.sockets: list[FakeSocket] = []
        self.refuses = False

    def open(self, deadline: float, *commands: bytes) -> Link:
        if self.refuses:
            raise ConnectionRefusedError("refused")
        self.sockets.append(FakeSocket(self.special))
        return Link(self.sockets[-1], Endpoint("fake", 1))

    def accepts(self, reply: object) -> bool:
        return reply == "right"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def route() -> FakeRoute:
    return FakeRoute()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pipeline(route: FakeRoute, clock: Clock) -> Pipeline:
    return Pipeline(route, (), clock)


def echo(word: object) -> bytes:
    return pack(b"ECHO", str(word).encode())


class Callers:
    """Threads that call at once; what each got."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.results: dict[object, object] = {}
        self._pipeline = pipeline
        self._threads: list[threading.Thread] = []

    def call(self, name: object, data: bytes | None = None) -> threading.Thread:
        def run() -> None:
            try:
                self.results[name] = self._pipeline.call(data or echo(name))
            except (AwayError, BusyError) as error:
                self.results[name] = str(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return self._threads[-1]

    def wait_for(self, number: int) -> None:
        """Until so many calls wait behind the leader."""
        done = threading.Event()
        for _ in range(5000):
            if len(self._pipeline._waiting) >= number:
                return
            done.wait(0.001)
        raise AssertionError(f"{len(self._pipeline._waiting)} calls wait, not {number}")

    def join(self) -> dict[object, object]:
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        return self.results


def test_a_lone_caller_pays_one_write(route: FakeRoute, pipeline: Pipeline) -> None:
    assert pipeline.call(echo("a")) == [b"a"]
    assert pipeline.call(echo("b") + echo("c"), 2) == [b"b", b"c"]
    assert route.sockets[0].writes == [echo("a"), echo("b") + echo("c")]
    assert (pipeline.commands, pipeline.batches) == (3, 2)


def test_those_who_come_meanwhile_are_written_together(
    route: FakeRoute, pipeline: Pipeline
) -> None:
    callers = Callers(pipeline)
    gate = threading.Event()
    route.special[b"HOLD"] = lambda: b"+held\r\n" if gate.wait(WAIT) else b""
    callers.call("first", pack(b"HOLD"))
    callers.wait_for(0)
    while not route.sockets or not route.sockets[0].writes:
        gate.wait(0.001)
    for number in range(20):
        callers.call(number)
    callers.wait_for(20)
    gate.set()
    assert callers.join() == {"first": [b"held"], **{n: [b"%d" % n] for n in range(20)}}
    assert pipeline.batches == 2
    assert not pipeline._led


@pytest.mark.parametrize("hangs", [False, True])
def test_a_tail_is_sent_once_for_a_batch_and_ends_all_of_it(
    route: FakeRoute, clock: Clock, hangs: bool
) -> None:
    pipeline = Pipeline(route, (), clock, tail=echo("tail"))
    callers = Callers(pipeline)
    gate = threading.Event()
    route.special[b"HOLD"] = lambda: b"+held\r\n" if gate.wait(WAIT) else b""
    callers.call("first", pack(b"HOLD"))
    while not route.sockets or not route.sockets[0].writes:
        gate.wait(0.001)
    for number in range(5):
        callers.call(number)
    callers.wait_for(5)
    if hangs:
        replies = iter([b"+0\r\n", b"+1\r\n"])
        route.special[b"ECHO"] = lambda: next(replies, b"")
    gate.set()
    results = callers.join()
    if hangs:
        # All that is answered is the first one's tail and one call of the next batch.
        assert results.pop("first") == [b"held", b"0"]
        assert all("did not answer" in str(result) for result in results.values())
    else:
        assert results == {
            "first": [b"held", b"tail"],
            **{n: [b"%d" % n, b"tail"] for n in range(5)},
        }
        assert b"".join(route.sockets[0].writes).count(echo("tail")) == 2
    assert len(results) >= 5
    assert not pipeline._led


def test_an_error_reply_is_its_caller_s_only(route: FakeRoute, pipeline: Pipeline) -> None:
    route.special[b"BAD"] = lambda: b"-ERR no\r\n"
    (reply,) = pipeline.call(pack(b"BAD"))
    assert isinstance(reply, hiredis.ReplyError)
    assert pipeline.call(echo("a")) == [b"a"]
    assert len(route.sockets) == 1


def test_a_server_that_says_nothing_fails_all_and_the_next_moment_is_free(
    route: FakeRoute, pipeline: Pipeline, clock: Clock
) -> None:
    route.special[b"HANG"] = lambda: b""
    with pytest.raises(AwayError, match="did not answer"):
        pipeline.call(pack(b"HANG"))
    assert route.sockets[0].closed
    with pytest.raises(AwayError, match="did not answer"):
        pipeline.call(echo("a"))
    assert len(route.sockets) == 1, "it was tried again at once"
    clock.now += 1.0
    assert pipeline.call(echo("a")) == [b"a"]
    assert pipeline.circuit.cause is None


def test_all_who_wait_fail_with_the_leader(route: FakeRoute, pipeline: Pipeline) -> None:
    callers = Callers(pipeline)
    gate = threading.Event()
    route.special[b"HANG"] = lambda: b"" if gate.wait(WAIT) else b"+late\r\n"
    callers.call("first", pack(b"HANG"))
    while not route.sockets or not route.sockets[0].writes:
        gate.wait(0.001)
    for number in range(5):
        callers.call(number)
    callers.wait_for(5)
    gate.set()
    results = callers.join()
    assert len(results) == 6
    assert all("did not answer" in str(result) for result in results.values())
    assert route.sockets[0].writes == [pack(b"HANG")], "what waited was sent all the same"
    assert not pipeline._led


def test_a_refused_connection_is_said_in_its_words(route: FakeRoute, pipeline: Pipeline) -> None:
    route.refuses = True
    with pytest.raises(AwayError, match="refused"):
        pipeline.call(echo("a"))


def test_an_idle_connection_that_was_closed_is_replaced(
    route: FakeRoute, pipeline: Pipeline, clock: Clock
) -> None:
    pipeline.call(echo("a"))
    clock.now += 60.0
    pipeline.call(echo("b"))
    assert len(route.sockets) == 1
    route.sockets[0].ended = True
    clock.now += 60.0
    assert pipeline.call(echo("c")) == [b"c"]
    assert len(route.sockets) == 2


def test_a_replica_s_refusal_makes_the_next_call_connect_anew(
    route: FakeRoute, pipeline: Pipeline
) -> None:
    route.special[b"WRITE"] = lambda: b"-READONLY You can't write against a read only replica.\r\n"
    pipeline.call(pack(b"WRITE"))
    pipeline.call(echo("a"))
    assert len(route.sockets) == 2


def test_a_server_that_is_no_primary_any_more_fails_the_batch(
    route: FakeRoute, pipeline: Pipeline, clock: Clock
) -> None:
    role = [b"+right\r\n"]
    route.probe = pack(b"ROLE")
    route.special[b"ROLE"] = lambda: role[0]
    route.accepts = lambda reply: reply == b"right"  # type: ignore[method-assign]
    pipeline.call(echo("a"))
    pipeline.call(echo("a"))
    assert b"ROLE" not in route.sockets[0].writes[1], "it is looked at with every batch"
    clock.now += 2.0
    pipeline.call(echo("b"))
    assert route.sockets[0].writes[2] == pack(b"ROLE") + echo("b")
    role[0] = b"+wrong\r\n"
    clock.now += 2.0
    with pytest.raises(AwayError, match="not the primary"):
        pipeline.call(echo("c"))
    assert route.sockets[0].closed


def test_a_reply_to_nothing_ends_the_connection(route: FakeRoute, pipeline: Pipeline) -> None:
    route.special[b"TWO"] = lambda: b"+one\r\n+two\r\n"
    assert pipeline.call(pack(b"TWO")) == [b"one"]
    assert route.sockets[0].closed


def test_too_much_that_waits_is_refused_and_counted(
    route: FakeRoute, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpulse.store.pipeline.MAX_WAITING", 2)
    callers = Callers(pipeline)
    gate = threading.Event()
    route.special[b"HOLD"] = lambda: b"+held\r\n" if gate.wait(WAIT) else b""
    callers.call("first", pack(b"HOLD"))
    while not route.sockets or not route.sockets[0].writes:
        gate.wait(0.001)
    callers.call(1)
    callers.wait_for(1)
    with pytest.raises(BusyError, match="1 other calls"):
        pipeline.call(b"x" * (MAX_WAITING_BYTES + 1))
    callers.call(2)
    callers.wait_for(2)
    with pytest.raises(BusyError, match="2 other calls"):
        pipeline.call(echo("a"))
    assert pipeline.refused == 2
    gate.set()
    assert callers.join() == {"first": [b"held"], 1: [b"1"], 2: [b"2"]}


def test_a_caller_whose_patience_ends_is_not_sent(route: FakeRoute, pipeline: Pipeline) -> None:
    callers = Callers(pipeline)
    gate = threading.Event()
    route.special[b"HOLD"] = lambda: b"+held\r\n" if gate.wait(WAIT) else b""
    callers.call("first", pack(b"HOLD"))
    while not route.sockets or not route.sockets[0].writes:
        gate.wait(0.001)
    with pytest.raises(AwayError, match="too much to do"):
        pipeline.call(echo("late"), patience=0.01)
    gate.set()
    callers.join()
    assert pipeline.call(echo("next")) == [b"next"]
    assert echo("late") not in b"".join(route.sockets[0].writes)
    assert pipeline.given_up == 1


class _StopError(BaseException):
    pass


def test_a_leader_that_is_stopped_leaves_no_queue_behind(
    route: FakeRoute, pipeline: Pipeline, clock: Clock
) -> None:
    def stop() -> bytes:
        raise _StopError

    route.special[b"STOP"] = stop
    with pytest.raises(_StopError):
        pipeline.call(pack(b"STOP"))
    assert not pipeline._led
    assert route.sockets[0].closed, "nobody knows how much of it was sent"
    clock.now += 1.0
    assert pipeline.call(echo("a")) == [b"a"]


def test_a_fork_makes_its_own(route: FakeRoute, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(lambda: Pipeline(route))
    parent = lines.get()
    parent.call(echo("a"))
    assert lines.get() is parent
    monkeypatch.setattr("os.getpid", lambda: -1)
    child = lines.get()
    assert child is not parent
    child.call(echo("b"))
    assert route.sockets[0].closed, "the child keeps a copy of its parent's connection"
    assert lines.all() == [child]
