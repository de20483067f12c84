"""The pool: where the application runs.  Greenlets or native threads behind one seam.

Both pools have a hub on the worker's main thread, where connections are parked, and members, where
requests and handlers run.  :class:`Pool` is the seam; nothing above or below asks which of the two
it has.

Greenlets (2.2 of the design): members are persistent and reused last-in-first-out, so that what
Django keeps per greenlet (database connections, translations) is used again and follows real
concurrency.  A job submitted from the hub starts at once if a member is idle or may be made; all
others start from the hub's next turn, so that a chain of jobs never keeps the hub from its sockets.

Threads: the size is fixed and threads start on demand.  What they want of the hub they put into a
queue and wake it.

A greenlet that waits can be interrupted, a native thread cannot (ADR 0015).
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import greenlet
from gevent import get_hub, spawn
from gevent.event import Event

from gpulse.worker.lanes import Job, Lanes
from gpulse.worker.stack import format_stack

log = logging.getLogger("gpulse.worker")

IDLE_SECONDS = 30.0
"""A greenlet that had nothing to do for so long ends and closes its database connections."""

IN_A_ROW = 64
"""Jobs that a greenlet runs while handlers wait, before the hub has its turn."""

HUB_CALLS = 1000
"""Calls of native threads that wait for the hub; whoever would add one waits."""


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
        """Requests that wait."""

    @property
    def has_waiting(self) -> bool:
        """Requests or handlers wait."""

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

    def cancel(self, job: Job) -> bool:
        """Take back a job that waits; False if it has begun."""

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


def _outcome(
    call: Callable[..., Any], args: tuple[object, ...]
) -> tuple[Any, BaseException | None]:
    """On a file thread: the result and the error of a call.

    An exception that came out of it would have its traceback printed by gevent.
    """
    try:
        return call(*args), None
    except Exception as error:
        return None, error


class _FileThreads:
    """The part that both pools share: gevent's native threads for files."""

    def in_file_thread(
        self,
        call: Callable[..., Any],
        args: tuple[object, ...],
        done: Callable[..., None],
        *done_args: object,
    ) -> None:
        def work() -> None:
            done(*done_args, *get_hub().threadpool.apply(_outcome, (call, args)))

        # In a greenlet: where all threads are taken, by files or by look-ups of names, it has to
        # wait for one, and a callback of the hub may not.
        spawn(work)


class _PoolGreenlet(greenlet.greenlet):
    """A member."""

    __slots__ = ("ends", "idle_since", "is_away", "job")

    job: Job | None
    """What it runs."""
    ends: bool
    """It ends with its job."""
    is_away: bool
    """It has left the bound."""
    idle_since: float
    """Monotonic seconds; tells something only while it is idle."""


class GreenletPool(_FileThreads):
    """Persistent greenlets, reused last-in-first-out.  All methods run on the hub's thread.

    :param size: members at most.
    :param retire: called on a member that ends: closes what the greenlet holds.
    """

    is_on_hub = True

    def __init__(self, size: int, retire: Callable[[], None]) -> None:
        self._hub = get_hub()
        self._members: set[_PoolGreenlet] = set()
        self._idle: list[_PoolGreenlet] = []
        self._queue = Lanes()
        self._away: set[greenlet.greenlet] = set()
        self._wake_pending = False
        self._now = time.monotonic()  # at the last retire_idle: a clock that costs nothing

        self.size = size
        self._retire = retire

        self.busy = 0
        self.alive = 0
        self.detached = 0

    @property
    def queued(self) -> int:
        return len(self._queue.requests)

    @property
    def has_waiting(self) -> bool:
        return bool(self._queue)

    def submit(self, job: Job) -> None:
        is_hub = greenlet.getcurrent() is self._hub
        if is_hub and self._idle and not self._queue:
            self._start(self._idle.pop(), job)
            return
        self._queue.requests.append(job)
        if is_hub:
            self._dispatch()
        else:
            self._wake()

    def submit_handler(self, job: Job) -> None:
        # Not at once: those of one turn of the hub run one after the other on one member, as long
        # as none of them waits.  That saves two switches for each.
        self._queue.handlers.append(job)
        self._wake()

    def _start(self, member: _PoolGreenlet, job: Job) -> None:
        member.job = job
        self.busy += 1
        member.switch()

    def _wake(self) -> None:
        if not self._wake_pending:
            self._wake_pending = True
            self._hub.loop.run_callback(self._woken)

    def _woken(self) -> None:
        self._wake_pending = False
        self._dispatch()

    def _dispatch(self) -> None:
        """On the hub: give waiting jobs to idle members, and make members up to ``size``.

        Jobs submitted while this runs (by members: they find themselves not on the hub) wait for
        the next turn, so the loop ends.
        """
        for _ in range(len(self._queue)):
            if not self._queue:
                return
            if self._idle:
                member = self._idle.pop()
            elif self.alive - len(self._away) < self.size:
                member = _PoolGreenlet(self._member, self._hub)
                member.ends = member.is_away = False
                self._members.add(member)
                self.alive += 1
            else:
                return
            self._start(member, self._queue.take())

    def _member(self) -> None:
        me: Any = greenlet.getcurrent()
        handlers, in_a_row = self._queue.handlers, 0
        try:
            while me.job is not None:
                try:
                    me.job()
                except greenlet.GreenletExit:
                    # Somebody ended this greenlet, perhaps the application itself.
                    me.ends = True
                except BaseException:
                    # A job handles its own errors; SystemExit in a view must not end the worker.
                    log.exception("a job of the pool raised")
                me.job = None
                if me.is_away:
                    break
                if handlers and in_a_row < IN_A_ROW and not me.ends:
                    in_a_row += 1
                    me.job = self._queue.take()
                    continue
                in_a_row = 0
                self.busy -= 1
                if self._queue:
                    self._wake()
                if me.ends:
                    break  # its place is free for another
                me.idle_since = self._now
                self._idle.append(me)
                self._rest(me)
        finally:
            self._members.discard(me)
            self._away.discard(me)
            self.detached = len(self._away)
            self.alive -= 1
            try:
                self._retire()
            except Exception:
                log.exception("closing what a pool greenlet held")

    def _rest(self, me: _PoolGreenlet) -> None:
        """On a member: until it has a job, or is to end."""
        while me.job is None and not me.ends:
            try:
                self._hub.switch()
            except BaseException as error:
                # What an earlier job left behind, say a gevent.Timeout that nobody closed.  Ending
                # here would leave a dead greenlet among the idle, and the job given to it undone.
                log.warning(
                    "%r came to an idle pool greenlet; a request started it and did not end it",
                    error,
                )
            # Or a switch by somebody else, left behind in the same way.

    def cancel(self, job: Job) -> bool:
        try:
            self._queue.remove(job)
        except ValueError:
            return False
        return True

    def interrupt(self, job: Job, error: BaseException) -> bool:
        member = self._member_of(job)
        if member is None or member in self._away:
            return False
        # What the job leaves half done in its greenlet's locals, say a transaction that is open, or
        # an inner greenlet that would come back to this one later, must not meet another job.
        member.ends = True
        # It is suspended, for we are the hub.  What it waits in cleans up, as for gevent.Timeout.
        member.throw(error)
        return True

    def stack_of(self, job: Job) -> str:
        member = self._member_of(job)
        return format_stack(member.gr_frame) if member is not None else ""

    def _member_of(self, job: Job) -> _PoolGreenlet | None:
        # A search, 13 us for 1,000 members: it is rare, and an index would cost each job 0.1 us.
        return next((member for member in self._members if member.job is job), None)

    def call_hub(self, call: Callable[..., object], *args: object) -> None:
        # The same thread, and the call does not block: no switch is needed.
        call(*args)

    def waiter(self) -> Waiter:
        return Event()  # type: ignore[no-any-return]

    def blocking(self, call: Callable[..., Any], *args: object) -> Any:
        result, error = self._hub.threadpool.apply(_outcome, (call, args))
        if error is not None:
            raise error
        return result

    def spawn(self, call: Callable[..., object], *args: object) -> None:
        spawn(call, *args)

    def member(self) -> object:
        return greenlet.getcurrent()

    def detach(self, member: Any = None) -> None:
        member = member or greenlet.getcurrent()
        if member not in self._away:
            self._away.add(member)
            self.detached = len(self._away)
            member.is_away = True
            self.busy -= 1
            if self._queue:
                self._wake()

    def retire_idle(self, now: float) -> None:
        self._now = now
        # The list is a stack: those idle for long lie at the bottom.
        while self._idle and now - self._idle[0].idle_since > IDLE_SECONDS:
            member = self._idle.pop(0)
            member.ends = True
            member.switch()


class ThreadPool(_FileThreads):
    """Native threads.  ``submit`` and ``call_hub`` may be called from any thread.

    :param size: threads at most, detached ones not counted.
    :param retire: called on a thread that ends.
    """

    is_on_hub = False

    def __init__(self, size: int, retire: Callable[[], None]) -> None:
        self._hub_thread = threading.get_ident()
        self._hub_calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._async = get_hub().loop.async_()
        self._async.start(self._run_hub_calls)
        self._queue = Lanes()
        self._condition = threading.Condition(threading.Lock())
        self._running: dict[Job, int] = {}
        self._away: set[int] = set()
        self._waiting = 0

        self.size = size
        self._retire = retire

        self.busy = 0
        self.alive = 0
        self.detached = 0

    @property
    def queued(self) -> int:
        return len(self._queue.requests)

    @property
    def has_waiting(self) -> bool:
        return bool(self._queue)

    def submit(self, job: Job) -> None:
        self._submit(job, self._queue.requests)

    def submit_handler(self, job: Job) -> None:
        self._submit(job, self._queue.handlers)

    def _submit(self, job: Job, lane: deque[Job]) -> None:
        with self._condition:
            lane.append(job)
            if self._waiting >= len(self._queue):
                self._condition.notify()
            elif self.alive - self.detached < self.size:
                self._start()
            else:
                self._condition.notify()

    def _start(self) -> None:
        self.alive += 1
        try:
            threading.Thread(target=self._member, name="gpulse-pool", daemon=True).start()
        except RuntimeError as error:
            self.alive -= 1
            log.error(
                "no thread for the pool: %s; its %d others go on; raise the limit of tasks "
                "(ulimit -u, TasksMax=) or lower --thread-workers",
                error,
                self.alive,
            )

    def _member(self) -> None:
        me = threading.get_ident()
        try:
            while me not in self._away:
                with self._condition:
                    self._waiting += 1
                    while not self._queue:
                        self._condition.wait()
                    self._waiting -= 1
                    job = self._queue.take()
                    self.busy += 1
                    self._running[job] = me
                try:
                    job()
                except BaseException:
                    log.exception("a job of the pool raised")
                with self._condition:
                    self._running.pop(job, None)
                    if me not in self._away:
                        self.busy -= 1
        finally:
            with self._condition:
                self.alive -= 1
                self._away.discard(me)
                self.detached = len(self._away)
            self._retire()

    def cancel(self, job: Job) -> bool:
        with self._condition:
            try:
                self._queue.remove(job)
            except ValueError:
                return False
            return True

    def interrupt(self, job: Job, error: BaseException) -> bool:
        return False

    def stack_of(self, job: Job) -> str:
        thread = self._running.get(job)
        stack = format_stack(sys._current_frames().get(thread)) if thread is not None else ""
        # The thread runs on: what it does for another job by now is not told.
        return stack if self._running.get(job) == thread else ""

    def call_hub(self, call: Callable[..., object], *args: object) -> None:
        if threading.get_ident() == self._hub_thread:
            call(*args)
            return
        while len(self._hub_calls) >= HUB_CALLS:
            time.sleep(0.001)  # the hub has to catch up; it never waits for us
        self._hub_calls.append((call, args))
        self._async.send_ignoring_arg(None)

    def _run_hub_calls(self) -> None:
        # As many as there are now: calls that lead to further calls let sockets have their turn.
        for _ in range(len(self._hub_calls)):
            call, args = self._hub_calls.popleft()
            try:
                call(*args)
            except Exception:
                log.exception("a call to the hub raised")
        if self._hub_calls:
            self._async.send_ignoring_arg(None)

    def waiter(self) -> Waiter:
        return threading.Event()

    def blocking(self, call: Callable[..., Any], *args: object) -> Any:
        return call(*args)  # a thread of the pool may wait

    def spawn(self, call: Callable[..., object], *args: object) -> None:
        threading.Thread(target=call, args=args, name="gpulse-service", daemon=True).start()

    def member(self) -> object:
        return threading.get_ident()

    def detach(self, member: Any = None) -> None:
        member = member or threading.get_ident()
        with self._condition:
            if member not in self._away:
                self._away.add(member)
                self.detached = len(self._away)
                self.busy -= 1
                if self._queue and self.alive - self.detached < self.size:
                    self._start()

    def retire_idle(self, now: float) -> None:
        """Threads stay: their number is fixed, and so are their database connections."""
