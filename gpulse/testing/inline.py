"""A worker without processes, hub, threads or clock: everything runs inline, in the test.

The parts are the real ones (connections, sessions, the fan-out, presence, the store in memory);
what is replaced is below them: the hub's loop, the sockets, the pool and the time.  Nothing happens
behind the test's back: handlers run when something was sent to them and before the call that sent
it returns, and time passes only by :meth:`InlineWorker.advance`.

While a worker is there its store is that of the process, so what views and signal receivers publish
with :func:`gpulse.publish` reaches the test's clients.

One thread only.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Protocol, Self

from django.db import connections

from gpulse import config, site, store
from gpulse.connection.connection import Connection
from gpulse.connection.timers import DeadlineWheel
from gpulse.historyrules import HistoryRules
from gpulse.store.fanout import Fanout
from gpulse.store.historian import Historian
from gpulse.store.memory import MemoryStore
from gpulse.store.presence import Presence
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.sockets import Sockets
from gpulse.websocket.watch import AccountWatch
from gpulse.worker.services import Services

STEPS = 100_000
"""Handlers, reads and callbacks that one action of a test may lead to; more never come to an
end."""
RESOLUTION = 0.25
"""Seconds by which time advances at a step: how late a deadline may be seen."""

_READ = 1  # libev's EV_READ


class InlineSocket:
    """The server's end of a connection; the test has the other in its hands."""

    _numbers = itertools.count(1_000_000)

    def __init__(self) -> None:
        self._number = next(self._numbers)
        self.incoming: deque[bytes] = deque()
        """What the client sent and nobody has read; an empty one is the end."""
        self.outgoing: deque[bytes] = deque()
        """What the server sent and the client has not looked at."""
        self.reads = True
        """The client takes what comes; else it waits in the connection."""
        self.is_shut = False
        self.is_closed = False

    def fileno(self) -> int:
        return -1 if self.is_closed else self._number

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        data = self.incoming.popleft()
        if len(data) > size:
            self.incoming.appendleft(data[size:])
        return data[:size]

    def send(self, data: bytes | memoryview) -> int:
        if not self.reads:
            raise BlockingIOError
        self.outgoing.append(bytes(data))
        return len(data)

    def shutdown(self, how: int) -> None:
        self.is_shut = True

    def close(self) -> None:
        self.is_shut = self.is_closed = True


class _Watcher:
    """As much of libev's io watcher as a connection uses."""

    def __init__(self, loop: "InlineLoop", fd: int, events: int) -> None:
        self._loop = loop
        self._key = (fd, events)
        self._callback: Callable[[], None] | None = None

    def start(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop.watching[self._key] = callback

    def stop(self) -> None:
        self._loop.watching.pop(self._key, None)

    def close(self) -> None:
        self.stop()


class InlineLoop:
    """As much of gevent's loop as connections and services use."""

    def __init__(self) -> None:
        self.watching: dict[tuple[int, int], Callable[[], None]] = {}
        self.callbacks: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def io(self, fd: int, events: int) -> _Watcher:
        return _Watcher(self, fd, events)

    def run_callback(self, call: Callable[..., object], *args: object) -> None:
        self.callbacks.append((call, args))


class _InlineWaiter:
    """Set on the hub, awaited on a member; here both are the test."""

    def __init__(self, turn: Callable[[], bool]) -> None:
        self._is_set = False
        self._turn = turn

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout: float) -> bool:
        while not self._is_set and self._turn():
            pass
        return self._is_set  # and if nothing can set it any more, the time is over


class InlinePool:
    """The pool's seam (see :mod:`gpulse.worker.pools`) in one thread.

    :param turn: does one thing that the hub has to do; False if there was none.
    """

    is_on_hub = True
    size = 1
    busy = 0
    alive = 1
    detached = 0

    def __init__(self, turn: Callable[[], bool]) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.services: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._turn = turn

    handshakes = 0

    @property
    def queued(self) -> int:
        return len(self.jobs)

    @property
    def has_waiting(self) -> bool:
        return bool(self.jobs)

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    submit_handler = submit_handshake = submit

    def cancel(self, job: Callable[[], None]) -> bool:
        with suppress(ValueError):
            self.jobs.remove(job)
            return True
        return False

    def interrupt(self, job: Callable[[], None], error: BaseException) -> bool:
        return False

    def stack_of(self, job: Callable[[], None]) -> str:
        return ""

    def call_hub(self, call: Callable[..., object], *args: object) -> None:
        call(*args)

    def waiter(self) -> _InlineWaiter:
        return _InlineWaiter(self._turn)

    def blocking(self, call: Callable[..., Any], *args: object) -> Any:
        return call(*args)

    def spawn(self, call: Callable[..., object], *args: object) -> None:
        self.services.append((call, args))

    def member(self) -> object:
        return self

    def detach(self, member: object = None) -> None:
        """There is no bound to leave."""

    def retire_idle(self, now: float) -> None:
        """The one member stays."""


class Reader(Protocol):
    """A client of the test."""

    def read(self) -> bool:
        """Look at what came; True if that had an answer."""


class InlineWorker:
    """See the module's text.  A context manager; where there is none, a
    :class:`~gpulse.testing.client.WebSocketClient` makes one.

    ::

        with InlineWorker() as worker:
            self.client.post("/rooms/lobby", {"message": "hello"})
            with WebSocketClient("/rooms/lobby/socket") as ws: ...
            with WebSocketClient("/rooms/lobby/socket") as ws: ...   # finds the history

    Limits, history and the number of sockets are those of ``settings.GPULSE``.
    """

    current: "InlineWorker | None" = None
    """The one whose ``with`` runs, None outside."""

    def __init__(self) -> None:
        self.loop = InlineLoop()
        self.clients: list[Reader] = []
        self.open_sockets: dict[int, InlineSocket] = {}
        self._calls: list[tuple[float, Callable[..., object], tuple[object, ...]]] = []
        self._now = time.monotonic()
        self._former_store: store.Store | None = None
        self._clients: int | None = None  # counted where it lasts as long as they do
        self._is_running = False

        options = config.resolve(
            [config.from_settings(site.describe().gpulse, "the Django settings")]
        )
        self.pool = InlinePool(self.turn)
        self.wheel = DeadlineWheel(self._now, RESOLUTION)
        self.store = MemoryStore(clock=self.clock, rules=HistoryRules(options.history))
        # The lease of its members never ends here, so there is no beat that renews it; what a flush
        # would tell, the last turn does.
        self.presence = Presence(self.store, lambda service: None)
        historian = Historian(self.store, self.pool.spawn, self.pool.call_hub, self.clock)
        self.fanout = Fanout(self.store, historian)
        self.sockets = Sockets(
            self.pool,
            self.wheel,
            options.max_websockets,
            SocketLimits.of(options),
            self.fanout.remove_all,
            self.loop.run_callback,
            self.clock,
        )
        self.accounts = AccountWatch(self.sockets.identities, self.fanout, self.pool, self.clock)
        self.services = Services(
            self.pool,  # type: ignore[arg-type]
            self.sockets,
            self.store,
            self.fanout,
            self.presence,
            self.accounts,
        )

    # -- its life

    def __enter__(self) -> Self:
        if InlineWorker.current is not None:
            raise RuntimeError("an InlineWorker runs already: use InlineWorker.current")
        InlineWorker.current = self
        self._former_store = store.installed()
        store.install(self.store)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for session in list(self.sockets.sessions):
                session.connection.abort()
            self.run()
        finally:
            self.fanout.close()
            self.store.close()
            store.install(self._former_store)
            InlineWorker.current = None

    @classmethod
    def acquire(cls) -> "InlineWorker":
        """For a client: the current worker, or else one that lasts as long as clients use it."""
        worker = cls.current
        if worker is None:
            worker = cls().__enter__()
            worker._clients = 0
        if worker._clients is not None:
            worker._clients += 1
        return worker

    def release(self) -> None:
        """A client is done with it."""
        if self._clients is not None:
            self._clients -= 1
            if not self._clients:
                self.__exit__(None, None, None)

    # -- time

    def clock(self) -> float:
        """Monotonic seconds, as of this worker."""
        return self._now

    def call_later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        """Call when that time has passed."""
        self._calls.append((self._now + seconds, call, args))

    def advance(self, seconds: float) -> None:
        """Let time pass: deadlines, pings, idle times and rates see it."""
        end = self._now + seconds
        while self._now < end:
            self._now = min(self._now + RESOLUTION, end)
            self.wheel.turn(self._now)
            self.accounts.tick(self._now)
            due = [entry for entry in self._calls if entry[0] <= self._now]
            self._calls = [entry for entry in self._calls if entry[0] > self._now]
            for _, call, args in sorted(due, key=lambda entry: entry[0]):
                call(*args)
            self.run()

    # -- work

    def open_connection(self, peer: tuple[str, int]) -> tuple[Connection, InlineSocket]:
        """A connection that a client of the test opened, and its socket."""
        sock = InlineSocket()
        number = sock.fileno()
        self.open_sockets[number] = sock
        connection = Connection(
            self.loop,
            sock,  # type: ignore[arg-type]
            peer,
            None,
            self.wheel,
            lambda closed: self.open_sockets.__delitem__(number),
        )
        return connection, sock

    def run(self) -> None:
        """Do all that is to be done; returns when nothing is left.

        :raises AssertionError: that has no end.
        """
        if self._is_running:
            return  # a handler uses a client; whoever runs it goes on with what that leads to
        self._is_running = True
        try:
            for _ in range(STEPS):
                if self.turn():
                    continue
                if self.pool.jobs:
                    self.pool.jobs.popleft()()
                elif not any(client.read() for client in self.clients):
                    return
            raise AssertionError(
                f"{STEPS} steps and no end: some handler publishes what makes it publish again"
            )
        finally:
            self._is_running = False

    def turn(self) -> bool:
        """One thing of the hub's; False if there is none."""
        loop, pool = self.loop, self.pool
        for (fd, events), callback in list(loop.watching.items()):
            sock = self.open_sockets.get(fd)
            if sock is None:
                continue
            if (events == _READ and sock.incoming) or (events != _READ and sock.reads):
                callback()
                return True
        for queue in (loop.callbacks, pool.services):
            if queue:
                call, args = queue.popleft()
                call(*args)
                return True
        self.presence.flush()
        return False


@contextmanager
def committing() -> Iterator[None]:
    """What is done here is as good as committed: what it put off until then runs at its end.

    ``TestCase`` holds a transaction open around each test, so nothing would ever be committed.
    """
    marks = {
        connection: len(connection.run_on_commit)
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    }
    yield
    for connection, mark in marks.items():
        while len(connection.run_on_commit) > mark:
            _, call, robust = connection.run_on_commit.pop(mark)
            try:
                call()
            except Exception:
                if not robust:
                    raise
