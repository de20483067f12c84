"""Commands of a whole process on one connection: written together, answered in their order.

However many callers there are, greenlets of a patched process or native threads, one of them at a
time *leads*: it writes the commands of all that wait in one piece, reads, and hands out the
replies.  The others sleep until theirs is there.  When the leader has its own, it makes one of the
others the next leader.  So there is no thread and no greenlet of our own: a caller that is alone
pays a send and a recv and no switch, and among a hundred callers these two are paid once for all.
While a batch is under way those who come wait for its end, at most one round trip, which is what
makes the next batch large.

What is *waiting* has not been sent, what is *sent* is owed a reply.  A server that sends nothing
for ``ANSWER`` seconds while it owes a reply is away: then, or when the connection ends, all that
waits and all that was sent fails at once, and the :class:`~gpulse.store.circuit.Circuit` makes the
calls of the next moment fail for nothing.  No command is ever sent twice.

Threads: ``_mutex`` guards who waits and who leads, for a few instructions; the link, ``_sent`` and
``_active`` are the leader's alone.  A leader that an exception ends hands over all the same.  In a
process that forks, and for each native thread of a patched process, make a new one: see
:class:`Lines`.  Not to be used on the hub, which it would block.

gevent is not imported: where the process is patched, ``threading`` and ``socket`` are gevent's.
"""

import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

import hiredis

from gpulse.store.base import ANSWER
from gpulse.store.circuit import Circuit
from gpulse.store.link import RECV, AwayError, Link
from gpulse.store.route import Route

PAUSE = 0.3
"""Seconds for which calls fail at once after the store was found away."""
PATIENCE = 2.0
"""Seconds that a caller waits for its turn and its replies while the store answers others."""
MAX_WAITING = 10_000
"""Callers that wait: a second's work of the store; more are refused."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
BATCH_BYTES = 1024 * 1024
"""Bytes after which a batch takes no further command, so that one send ends in time."""
IDLE = 0.005
"""Seconds without traffic after which a connection is looked at before it is used: servers close
idle ones, and what is sent to a closed one is lost."""
RECHECK = 1.0
"""Seconds between two looks at whether the server is still the primary, where that can change."""
MAX_REPLY = 256 * 1024 * 1024
"""Bytes of an unfinished reply after which the connection is closed."""
STALLED = 4 * ANSWER
"""Seconds without a sign of a leader after which it must be dead: none of its steps takes as
long."""


class BusyError(Exception):
    """Nothing was sent, for too many wait."""


class Call:
    """The commands of one caller, and what became of them."""

    __slots__ = (
        "count",
        "data",
        "done",
        "failure",
        "given_up",
        "has_tail",
        "leads",
        "lock",
        "replies",
    )

    def __init__(self, data: bytes, count: int) -> None:
        self.data = data
        self.count = count
        self.replies: list[Any] = []
        self.lock: Any = None  # held while its caller sleeps
        self.done = False
        self.leads = False
        self.given_up = False
        self.has_tail = False  # which ends it
        self.failure: str | None = None

    def finish(self, failure: str | None = None) -> None:
        self.failure = failure
        self.done = True
        self.wake()

    def wake(self) -> None:
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.release()


class Pipeline:
    """See the head of this file.

    :param route: opens the connection.
    :param setup: packed commands that each connection begins with.
    :param tail: a packed command that each batch ends with; its reply is the last one of each call.
    """

    def __init__(
        self,
        route: Route,
        setup: tuple[bytes, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        tail: bytes = b"",
    ) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[Call] = deque()
        self._waiting_bytes = 0
        self._led = False
        self._sent: deque[Call] = deque()
        self._link: Link | None = None
        self._active = 0.0  # when the leader last began a step
        self._idle_since = 0.0
        self._next_check = 0.0
        self._receiving = False
        self._stale = False
        self._closed = False
        # gevent's exceptions come where a greenlet waits; a thread's may come anywhere.
        self._cooperative = is_patched()
        self.circuit = Circuit(PAUSE, clock)
        self._route = route
        self._setup = setup
        self._tail = tail
        self._clock = clock
        self.commands = 0
        """Commands sent."""
        self.batches = 0
        """Writes that they were sent in."""
        self.refused = 0
        """Calls refused because too many waited."""
        self.given_up = 0
        """Calls whose caller's patience ended."""

    def call(self, data: bytes, count: int = 1, patience: float = PATIENCE) -> list[Any]:
        """Send ``count`` packed commands one after the other; their replies, errors among them.

        :raises AwayError: the store is away; the commands may have been done or not.
        :raises BusyError: nothing was sent.
        """
        if not self.circuit.allows():
            raise AwayError(self.circuit.cause or "it was away a moment ago")
        call = Call(data, count)
        with self._mutex:
            if (
                len(self._waiting) >= MAX_WAITING
                or self._waiting_bytes + len(data) > MAX_WAITING_BYTES
            ) and self._waiting:
                self.refused += 1
                raise BusyError(f"{len(self._waiting)} other calls wait for it")
            self._waiting.append(call)
            self._waiting_bytes += len(data)
            if self._led:
                call.lock = lock = threading.Lock()
                lock.acquire()
            else:
                self._led = call.leads = True
        if not call.leads:
            self._wait(call, lock, patience)
        if not call.done:
            self._lead(call)
        if call.failure is not None:
            raise AwayError(call.failure)
        return call.replies

    def reset(self) -> None:
        """Connect anew before the next command: it may be another server by now."""
        self._stale = True

    def abandon(self) -> None:
        """This is a fork's copy of its parent's: close the descriptor and touch nothing else."""
        if self._link is not None:
            self._link.close()

    def close(self) -> None:
        """Close the connection; calls that are under way fail, later ones connect anew."""
        with self._mutex:
            busy = self._led
        if busy:
            self._fail("this process closes it")
        elif self._link is not None:
            self._link.close()
            self._link = None

    # Those who sleep

    def _wait(self, call: Call, lock: Any, patience: float) -> None:
        """Sleep until the call is done or leads.

        :raises AwayError: neither, within ``patience``.
        """
        try:
            # The second time is for a process that stood still: let the leader look first.
            if lock.acquire(timeout=patience) or lock.acquire(timeout=0.05):
                return
        except BaseException:
            self._give_up(call)
            raise
        self._give_up(call)
        if call.done:
            return
        if self._clock() - self._active > STALLED:
            self._fail("the call that was to read its answer is gone")
            with self._mutex:
                self._led = False
        raise AwayError(f"it has too much to do: no turn and answer within {patience:g} s")

    def _give_up(self, call: Call) -> None:
        self._withdraw(call)
        if call.leads and not call.done:
            # It was woken to lead in this very moment.
            self._hand_over()

    def _withdraw(self, call: Call) -> None:
        """Its caller goes away: what was not sent is not to be sent."""
        with self._mutex:
            call.given_up = True
            self.given_up += 1
            if call in self._waiting:
                self._waiting.remove(call)
                self._waiting_bytes -= len(call.data)

    # The leader

    def _lead(self, call: Call) -> None:
        """Send and receive until ``call`` is done."""
        try:
            while not call.done:
                self._active = self._clock()
                self._receiving = False
                try:
                    if not self._sent:
                        self._send()
                    self._receive()
                except (OSError, hiredis.HiredisError, AwayError) as failure:
                    self._fail(str(failure) or type(failure).__name__)
        except BaseException:
            self._withdraw(call)
            # Where it only waited for bytes, another one can go on.
            if not (self._receiving and self._cooperative):
                self._fail("another call was stopped in the middle of its command")
            raise
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Make the first one that still sleeps the leader."""
        with self._mutex:
            tails = [each.calls for each in self._sent if isinstance(each, _Tail)]
            for call in chain(self._sent, *tails, self._waiting):
                if not (call.done or call.given_up or call.lock is None):
                    call.leads = True
                    call.wake()
                    return
            self._led = False

    def _send(self) -> None:
        """Write what waits, in one piece."""
        link = self._ready_link()
        batch: list[Call] = []
        size = 0
        if self._route.probe and self._active >= self._next_check:
            self._next_check = self._active + RECHECK
            batch.append(_Check(self._route))
        with self._mutex:
            waiting = self._waiting
            while waiting and size < BATCH_BYTES:
                call = waiting.popleft()
                size += len(call.data)
                batch.append(call)
                self.commands += call.count
            self._waiting_bytes -= size
            if self._tail:
                batch.append(_Tail(self._tail, [c for c in batch if not isinstance(c, _Check)]))
            self._sent.extend(batch)
        self.batches += 1
        link.sock.sendall(batch[0].data if len(batch) == 1 else b"".join([c.data for c in batch]))

    def _ready_link(self) -> Link:
        link, now = self._link, self._clock()
        if link is not None:
            if self._stale or (now - self._idle_since > IDLE and _has_ended(link)):
                self._link = None
                link.close()
            else:
                return link
        self._stale = False
        link = self._route.open(now + ANSWER, *self._setup)
        link.sock.settimeout(ANSWER)
        self._idle_since = self._next_check = self._active = self._clock()
        self._link = link
        return link

    def _receive(self) -> None:
        """Read once and hand out what came."""
        link, sent = self._link, self._sent
        if link is None:
            raise AwayError("it was closed")
        self._receiving = True
        try:
            data = link.sock.recv(RECV)
        except TimeoutError:
            data = _look_once_more(link)
        self._receiving = False
        if not data:
            raise AwayError("it closed the connection")
        reader = link.reader
        reader.feed(data)
        while sent:
            reply = reader.gets()
            if reply is False:
                if reader.len() > MAX_REPLY:
                    raise AwayError(f"it sent a reply of more than {MAX_REPLY} bytes")
                return
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY"):
                self._stale = True
            call = sent[0]
            call.replies.append(reply)
            if len(call.replies) == call.count:
                sent.popleft()
                if not call.has_tail:
                    call.finish()
        if reader.has_data():
            raise AwayError("it sent a reply that nobody asked for")
        self._idle_since = self._clock()
        if self.circuit.cause is not None:
            self.circuit.close()

    def _fail(self, cause: str) -> None:
        """The connection is of no use: so end all calls."""
        self.circuit.open(cause)
        with self._mutex:
            link, self._link = self._link, None
            calls = (*self._sent, *self._waiting)
            self._sent = deque()
            self._waiting.clear()
            self._waiting_bytes = 0
        if link is not None:
            link.close()
        for call in calls:
            call.finish(cause)


class _Check(Call):
    """Goes first in a batch: fails all of it if the server is not the right one any more."""

    __slots__ = ("_route",)

    def __init__(self, route: Route) -> None:
        super().__init__(route.probe, 1)
        self._route = route

    def finish(self, failure: str | None = None) -> None:
        if failure is None and not self._route.accepts(self.replies[0]):
            raise AwayError("it is not the primary any more")


class _Tail(Call):
    """Goes last in a batch, whose calls end with it."""

    __slots__ = ("calls",)

    def __init__(self, data: bytes, calls: list[Call]) -> None:
        super().__init__(data, 1)
        self.calls = calls
        for call in calls:
            call.has_tail = True

    def finish(self, failure: str | None = None) -> None:
        for call in self.calls:
            call.replies += self.replies
            call.finish(failure)


class Lines:
    """The pipelines to one server: one for each process, for a connection must not be shared by
    two; in a patched process one for each native thread, whose hub its socket belongs to.

    :param make: makes one that is not connected.
    """

    def __init__(self, make: Callable[[], Pipeline]) -> None:
        self._lines: dict[tuple[int, int], Pipeline] = {}
        self._make = make

    def get(self) -> Pipeline:
        """That of the caller."""
        key = _whose()
        line = self._lines.get(key)
        if line is None:
            # No lock: a fork may have left it held.
            line = self._lines.setdefault(key, self._make())
            for other in list(self._lines):
                if other[0] != key[0]:
                    self._lines.pop(other).abandon()
        return line

    def all(self) -> list[Pipeline]:
        """Those of this process."""
        pid = os.getpid()
        return [line for key, line in list(self._lines.items()) if key[0] == pid]

    def close(self) -> None:
        """Close the caller's, and forget those of other threads, whose hub must close them."""
        line = self._lines.get(_whose())
        self._lines.clear()
        if line is not None:
            line.close()


def _whose() -> tuple[int, int]:
    return os.getpid(), threading.get_native_id() if is_patched() else 0


def is_patched() -> bool:
    """Whether gevent's sockets stand in for those of the standard library."""
    return socket.socket.__module__.startswith("gevent")


def _has_ended(link: Link) -> bool:
    """Whether a connection that owes nothing is closed, or sent what nobody asked for."""
    link.sock.settimeout(0.0)
    try:
        link.sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        link.sock.settimeout(ANSWER)
    return True


def _look_once_more(link: Link) -> bytes:
    """After the deadline: the process may have stood still while the reply came."""
    link.sock.settimeout(0.0)
    try:
        data: bytes = link.sock.recv(RECV)
    except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
        raise AwayError(f"it did not answer for {ANSWER:g} s") from None
    finally:
        link.sock.settimeout(ANSWER)
    return data
