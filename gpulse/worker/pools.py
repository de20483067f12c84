"""The pool: where the application runs.  Greenlets or native threads behind one seam.

Both pools (:mod:`.greenlets`, :mod:`.threads`) have a hub on the worker's main thread, where
connections are parked, and members, where requests and handlers run.  :class:`Pool` is the seam;
nothing above or below asks which of the two it has.

A greenlet that waits can be interrupted, a native thread cannot (ADR 0015).
"""

from collections.abc import Callable
from typing import Any, Protocol

from gevent import get_hub, spawn

from gpulse.worker.lanes import Job, Lanes


class Waiter(Protocol):
    """Set on the hub, awaited on a member."""

    def set(self) -> None: ...

    def wait(self, timeout: float) -> bool:
        """True if it was set within ``timeout`` seconds."""


class Pool(Protocol):
    """The seam."""

    is_on_hub: bool
    """Members run on the hub's thread."""
    size: int
    """Members at most."""
    busy: int
    """Members at work now."""
    alive: int
    """Members that exist, detached ones included."""

    @property
    def queued(self) -> int:
        """Requests that wait, handshakes included."""

    @property
    def handshakes(self) -> int:
        """Handshakes that wait."""

    @property
    def has_waiting(self) -> bool:
        """Requests, handshakes or handlers wait."""

    detached: int
    """Members that left the bound, see :meth:`detach`."""

    def submit(self, job: Job) -> None:
        """Run the job on a member, in the order of submission.  From the hub or a member.

        Jobs do not raise.  They are hashable, and no two that are equal are under way at once.  The
        queue itself has no bound: whoever submits bounds what he submits (the server by
        ``limits.queue``).
        """

    def submit_handler(self, job: Job) -> None:
        """Run a WebSocket's job; as :meth:`submit`, in a lane of its own (see :mod:`.lanes`).

        Each socket has at most one at a time, so their number is bounded by that of the sockets.
        """

    def submit_handshake(self, job: Job) -> None:
        """Run a request that opens a WebSocket; as :meth:`submit`, but other requests come first
        (see :mod:`.lanes`), and the hub looks for these before each few."""

    def cancel(self, job: Job) -> bool:
        """Take back a request or handshake that waits; False if it has begun."""

    def interrupt(self, job: Job, error: BaseException) -> bool:
        """On the hub: raise ``error`` in a job that has begun, where it waits now.

        The job may catch it and go on, or wait elsewhere while it ends; then it may be interrupted
        again.  When it is over, its member ends, too, and another takes its place.

        :param error: a new one each time; no Exception, for that the application may catch.
        :returns: False if nothing was raised: the job does not run, its member left the bound (see
            :meth:`detach`), or the pool has native threads, which cannot be stopped.
        """

    def stack_of(self, job: Job) -> str:
        """On the hub: the stack of a job that has begun, as a traceback shows it, without local
        variables and at most :data:`~gpulse.worker.stack.FRAMES` deep; empty if it does not run."""

    def call_hub(self, call: Callable[..., object], *args: object) -> None:
        """From a member: run a call that does not block on the hub; in order, soon or at once."""

    def waiter(self) -> Waiter:
        """A new event from hub to member."""

    def blocking(self, call: Callable[..., Any], *args: object) -> Any:
        """From a member: the result of a call that may wait for a disk, without holding up the
        hub."""

    def in_file_thread(
        self,
        call: Callable[..., Any],
        args: tuple[object, ...],
        done: Callable[..., None],
        *done_args: object,
    ) -> None:
        """From the hub: run a call that may wait for a disk, then ``done(*done_args, result,
        error)`` on the hub."""

    def spawn(self, call: Callable[..., object], *args: object) -> None:
        """Run a service of the worker's own beside the pool, outside its bound."""

    def member(self) -> object:
        """The member that calls, for :meth:`detach`."""

    def detach(self, member: object = None) -> None:
        """A member leaves the bound, so that another takes its place; it ends with its job.

        For jobs that last as long as a connection.

        :param member: None: the caller; else what :meth:`member` gave, when a helper that the job
            started asks for it.
        """

    def retire_idle(self, now: float) -> None:
        """On the hub, now and then: end members that had nothing to do for IDLE_SECONDS."""


def outcome(call: Callable[..., Any], args: tuple[object, ...]) -> tuple[Any, BaseException | None]:
    """On a file thread: the result and the error of a call.

    An exception that came out of it would have its traceback printed by gevent.
    """
    try:
        return call(*args), None
    except Exception as error:
        return None, error


class SharedPool:
    """The part that both pools share: the queue, the numbers that are told, and gevent's native
    threads for files.

    :param size: members at most.
    :param retire: called on a member that ends.
    """

    def __init__(self, size: int, retire: Callable[[], None]) -> None:
        self._queue = Lanes(size)

        self.size = size
        self._retire = retire

        self.busy = 0
        self.alive = 0
        self.detached = 0

    @property
    def queued(self) -> int:
        return len(self._queue.requests) + len(self._queue.handshakes)

    @property
    def handshakes(self) -> int:
        return len(self._queue.handshakes)

    @property
    def has_waiting(self) -> bool:
        return self._queue.has_waiting

    def in_file_thread(
        self,
        call: Callable[..., Any],
        args: tuple[object, ...],
        done: Callable[..., None],
        *done_args: object,
    ) -> None:
        def work() -> None:
            done(*done_args, *get_hub().threadpool.apply(outcome, (call, args)))

        # In a greenlet: where all threads are taken, by files or by look-ups of names, it has to
        # wait for one, and a callback of the hub may not.
        spawn(work)
