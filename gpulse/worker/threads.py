"""The pool of native threads.  The size is fixed and threads start on demand.

What they want of the hub they put into a queue and wake it.
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gevent import get_hub

from gpulse.worker.lanes import Job
from gpulse.worker.pools import SharedPool, Waiter
from gpulse.worker.stack import format_stack

log = logging.getLogger("gpulse.worker")

HUB_CALLS = 1000
"""Calls of native threads that wait for the hub; whoever would add one waits."""


class ThreadPool(SharedPool):
    """Native threads.  ``submit`` and ``call_hub`` may be called from any thread.

    :param size: threads at most, detached ones not counted.
    :param retire: called on a thread that ends.
    """

    is_on_hub = False

    def __init__(self, size: int, retire: Callable[[], None]) -> None:
        super().__init__(size, retire)
        self._hub_thread = threading.get_ident()
        self._hub_calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._async = get_hub().loop.async_()
        self._async.start(self._run_hub_calls)
        self._condition = threading.Condition(threading.Lock())
        self._running: dict[Job, int] = {}
        self._away: set[int] = set()
        self._waiting = 0

    def submit(self, job: Job) -> None:
        self._submit(job, self._queue.requests)

    def submit_handler(self, job: Job) -> None:
        self._submit(job, self._queue.handlers)

    def submit_handshake(self, job: Job) -> None:
        self._submit(job, self._queue.handshakes)

    def _submit(self, job: Job, lane: deque[Job]) -> None:
        with self._condition:
            lane.append(job)
            self._call_member()

    def _call_member(self) -> None:
        """Under the lock: have a thread look at the queue."""
        if self._waiting < len(self._queue) and self.alive - self.detached < self.size:
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
                    self._queue.end(job)
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
                for job, thread in self._running.items():
                    if thread == member:
                        self._queue.end(job)
                if self._queue:
                    self._call_member()

    def retire_idle(self, now: float) -> None:
        """Threads stay: their number is fixed, and so are their database connections."""
