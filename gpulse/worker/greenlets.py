"""The pool of greenlets (2.2 of the design).

Members are persistent and reused last-in-first-out, so that what Django keeps per greenlet
(database connections, translations) is used again and follows real concurrency.

A job submitted from the hub starts at once if a member is idle or may be made; all others start
from the hub's next turn, so that a chain of jobs never keeps the hub from its sockets.

Handshakes start in slices of SLICE seconds, one slice per turn of the hub and behind the reads of
that turn (ADR 0032): however many wait, a page waits for one slice.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import greenlet
from gevent import get_hub, spawn
from gevent.event import Event

from gpulse.worker.lanes import Job
from gpulse.worker.pools import SharedPool, Waiter, outcome
from gpulse.worker.stack import format_stack

log = logging.getLogger("gpulse.worker")

IDLE_SECONDS = 30.0
"""A greenlet that had nothing to do for so long ends and closes its database connections."""

IN_A_ROW = 64
"""Jobs that a greenlet runs while handlers wait, before the hub has its turn."""

SLICE = 0.00025
"""Seconds of a turn of the hub in which handshakes are started; the last one may take longer."""


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


class GreenletPool(SharedPool):
    """Persistent greenlets, reused last-in-first-out.  All methods run on the hub's thread.

    :param size: members at most.
    :param retire: called on a member that ends: closes what the greenlet holds.
    """

    is_on_hub = True

    def __init__(self, size: int, retire: Callable[[], None]) -> None:
        super().__init__(size, retire)
        self._hub = get_hub()
        self._members: set[_PoolGreenlet] = set()
        self._idle: list[_PoolGreenlet] = []
        self._away: set[greenlet.greenlet] = set()
        self._wake_pending = False
        # Looked at behind all reads of a turn, of libev's lowest priority.
        self._next_slice = self._hub.loop.timer(0, priority=-2)
        self._now = time.monotonic()  # at the last retire_idle: a clock that costs nothing

    def submit(self, job: Job) -> None:
        is_hub = greenlet.getcurrent() is self._hub
        queue = self._queue
        if is_hub and self._idle and not queue.requests and not queue.handlers:
            self._start(self._idle.pop(), job)
            return
        queue.requests.append(job)
        if is_hub:
            self._dispatch()
        else:
            self._wake()

    def submit_handler(self, job: Job) -> None:
        # Not at once: those of one turn of the hub run one after the other on one member, as long
        # as none of them waits.  That saves two switches for each.
        self._queue.handlers.append(job)
        self._wake()

    def submit_handshake(self, job: Job) -> None:
        self._queue.handshakes.append(job)
        self._plan_slice()

    def _plan_slice(self) -> None:
        """Have handshakes started in the hub's next turn, and not in this one."""
        if not self._next_slice.active:
            self._next_slice.start(self._slice_due)

    def _slice_due(self) -> None:
        # Not at once: the responses of this turn go out first.
        self._hub.loop.run_callback(self._run_slice)

    def _run_slice(self) -> None:
        """On the hub: start handshakes for SLICE seconds."""
        queue, end = self._queue, time.monotonic() + SLICE
        while queue.has_handshake:
            member = self._free_member()
            if member is None:
                return  # whoever ends wakes us
            self._start(member, queue.take_handshake())
            if time.monotonic() >= end:
                break
        if queue.has_handshake:
            self._plan_slice()

    def _free_member(self) -> _PoolGreenlet | None:
        """One that is idle, or a new one; None if all are busy."""
        if self._idle:
            return self._idle.pop()
        if self.alive - len(self._away) >= self.size:
            return None
        member = _PoolGreenlet(self._member, self._hub)
        member.ends = member.is_away = False
        self._members.add(member)
        self.alive += 1
        return member

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
        """On the hub: give requests and handlers to idle members, and make members up to ``size``.

        Jobs submitted while this runs (by members: they find themselves not on the hub) wait for
        the next turn, so the loop ends.
        """
        queue = self._queue
        for _ in range(len(queue.requests) + len(queue.handlers)):
            if not (queue.requests or queue.handlers):
                break
            member = self._free_member()
            if member is None:
                return
            self._start(member, queue.take())
        if queue.has_handshake:
            self._plan_slice()

    def _member(self) -> None:
        me: Any = greenlet.getcurrent()
        queue, in_a_row = self._queue, 0
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
                if queue.under_way:
                    queue.end(me.job)
                me.job = None
                if me.is_away:
                    break
                if queue.handlers and in_a_row < IN_A_ROW and not me.ends:
                    in_a_row += 1
                    me.job = queue.take()
                    continue
                in_a_row = 0
                self.busy -= 1
                if queue:
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
        result, error = self._hub.threadpool.apply(outcome, (call, args))
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
            self._queue.end(member.job)
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
