"""The queue of a pool: a lane each for requests, handlers of WebSockets, and handshakes.  Pure.

While requests and handlers both wait, they are taken in turns: ten thousand sockets whose handlers
wait do not keep a page waiting behind them, nor do pages starve the sockets.

Handshakes come behind both, for a storm of them is the one thing that thousands of clients do at
the same moment: one is taken after PASSED others, or when nothing else waits.  They have half of
the members at most, so that a page finds a member whatever the handshakes wait for.

Not locked.
"""

from collections import deque
from collections.abc import Callable

PASSED = 8
"""Requests and handlers that may be taken before a handshake that waited first."""

Job = Callable[[], None]


class Lanes:
    """Jobs that wait, each lane in the order of submission.

    Its length is the number of jobs that may be taken now: handshakes beyond their share are not.

    :param size: members of the pool.
    """

    __slots__ = (
        "_handlers_turn",
        "_passed",
        "_share",
        "handlers",
        "handshakes",
        "requests",
        "under_way",
    )

    def __init__(self, size: int) -> None:
        self.requests: deque[Job] = deque()
        self.handlers: deque[Job] = deque()
        self.handshakes: deque[Job] = deque()
        self.under_way: set[Job] = set()
        """Handshakes that were taken and have not ended; the pool says when, see :meth:`end`."""
        self._handlers_turn = False
        self._passed = 0

        self._share = max(1, size // 2)

    def __len__(self) -> int:
        count = len(self.requests) + len(self.handlers)
        if self.handshakes:
            count += min(len(self.handshakes), self._share - len(self.under_way))
        return count

    def __bool__(self) -> bool:
        return bool(self.requests or self.handlers or self.has_handshake)

    @property
    def has_handshake(self) -> bool:
        """A handshake may be taken now."""
        return bool(self.handshakes) and len(self.under_way) < self._share

    @property
    def has_waiting(self) -> bool:
        """Any job waits, whether it may be taken or not."""
        return bool(self.requests or self.handlers or self.handshakes)

    def take(self) -> Job:
        """The next job.  :raises IndexError: there is none."""
        is_due = self._passed >= PASSED or not (self.requests or self.handlers)
        if is_due and self.has_handshake:
            return self.take_handshake()
        self._passed += 1
        if self.handlers and (self._handlers_turn or not self.requests):
            self._handlers_turn = False
            return self.handlers.popleft()
        self._handlers_turn = True
        return self.requests.popleft()

    def take_handshake(self) -> Job:
        """The next handshake, whatever else waits.  :raises IndexError: there is none."""
        job = self.handshakes.popleft()
        self.under_way.add(job)
        self._passed = 0
        return job

    def end(self, job: Job) -> None:
        """A job has ended, or its member left the bound."""
        self.under_way.discard(job)

    def remove(self, job: Job) -> None:
        """Take back a request or a handshake.  :raises ValueError: it does not wait."""
        if job in self.handshakes:
            self.handshakes.remove(job)
        else:
            self.requests.remove(job)
