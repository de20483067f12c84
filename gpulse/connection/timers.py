"""Deadlines for very many connections at almost no cost.

One wheel per worker, turned by one hub timer.  An item has a ``deadline`` that may be moved as
often as one likes: moving it later is a plain store, because the wheel looks at the item again
only in the bucket where it already lies.  Nothing is ever cancelled.  A deadline fires at most
``resolution`` seconds late, never early.

Runs on the hub only; the wheel is pure but for the calls it makes into the items: time is passed
in, by its :class:`Turner`.
"""

import math
import time
from typing import Any, Protocol

NEVER = math.inf


class Timed(Protocol):
    """What can lie in the wheel."""

    deadline: float
    """Monotonic seconds, or NEVER."""
    wheel_bucket: int
    """The bucket in which the wheel will next look at the item; 0 while it is in none."""

    def deadline_passed(self, now: float) -> None:
        """Called once, on the hub, after ``deadline`` passed; may set a new one."""


class DeadlineWheel:
    """Buckets of ``resolution`` seconds, each a list of items.

    :param now: monotonic seconds at the start.
    :param resolution: seconds; how late a deadline may fire.
    """

    __slots__ = ("_buckets", "_next", "resolution")

    def __init__(self, now: float, resolution: float = 0.25) -> None:
        self.resolution = resolution
        self._buckets: dict[int, list[Timed]] = {}
        self._next = self._bucket(now)

    def _bucket(self, moment: float) -> int:
        return int(moment / self.resolution) + 1

    def set(self, item: Timed, deadline: float) -> None:
        """Give the item a deadline in place of the one it has; NEVER takes it away."""
        earlier, item.deadline = item.deadline, deadline
        if deadline == NEVER or (item.wheel_bucket and deadline >= earlier):
            return
        # A deadline in the past goes into the next bucket to be turned, else it would be missed.
        bucket = max(self._bucket(deadline), self._next)
        if item.wheel_bucket == 0 or bucket < item.wheel_bucket:
            item.wheel_bucket = bucket
            self._buckets.setdefault(bucket, []).append(item)

    def turn(self, now: float) -> int:
        """Fire what is due; returns how many deadlines passed."""
        fired = 0
        last = int(now / self.resolution)
        while self._next <= last:
            bucket = self._next
            self._next += 1
            for item in self._buckets.pop(bucket, ()):
                if item.wheel_bucket != bucket:
                    continue  # moved to an earlier bucket since; this entry is stale
                item.wheel_bucket = 0
                if item.deadline <= now:
                    item.deadline = NEVER
                    fired += 1
                    item.deadline_passed(now)
                else:
                    self.set(item, item.deadline)
        return fired

    def __len__(self) -> int:
        """Entries in the wheel, stale ones included."""
        return sum(map(len, self._buckets.values()))


class Turner:
    """Turns a wheel by a timer of the loop.

    libev calls timers before sockets.  After a hub that was held up, requests that came in time lie
    unread in the kernel while the deadlines of their connections have passed.  So the wheel is
    turned behind the sockets of the same turn of the hub; and where the timer itself came late,
    only at its next time, for the loop takes a bounded number of sockets in one turn.

    :param loop: the hub's loop.
    """

    __slots__ = ("_loop", "_turned", "_waited", "_watcher", "_wheel")

    def __init__(self, loop: Any, wheel: DeadlineWheel) -> None:
        self._watcher = loop.timer(wheel.resolution, wheel.resolution)
        self._turned = time.monotonic()
        self._waited = False

        self._loop = loop
        self._wheel = wheel

    def start(self) -> None:
        self._watcher.start(self._due)

    def stop(self) -> None:
        self._watcher.stop()
        self._watcher.close()

    def _due(self) -> None:
        now = time.monotonic()
        is_late, self._turned = now - self._turned > 2 * self._wheel.resolution, now
        if is_late and not self._waited:
            self._waited = True  # once: a hub that is always late has deadlines, too
            return
        self._waited = False
        self._loop.run_callback(self._turn)

    def _turn(self) -> None:
        self._wheel.turn(time.monotonic())
