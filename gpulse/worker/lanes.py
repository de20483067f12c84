"""The queue of a pool: requests and handlers of WebSockets in lanes of their own.  Pure.

While both have jobs, they are taken in turns: ten thousand sockets whose handlers wait do not keep
a page waiting behind them, nor do pages starve the sockets.  Not locked.
"""

from collections import deque
from collections.abc import Callable

Job = Callable[[], None]


class Lanes:
    """Jobs that wait, each lane in the order of submission."""

    __slots__ = ("_handlers_turn", "handlers", "requests")

    def __init__(self) -> None:
        self.requests: deque[Job] = deque()
        self.handlers: deque[Job] = deque()
        self._handlers_turn = False

    def __len__(self) -> int:
        return len(self.requests) + len(self.handlers)

    def __bool__(self) -> bool:
        return bool(self.requests or self.handlers)

    def take(self) -> Job:
        """The next job.  :raises IndexError: there is none."""
        if self.handlers and (self._handlers_turn or not self.requests):
            self._handlers_turn = False
            return self.handlers.popleft()
        self._handlers_turn = True
        return self.requests.popleft()

    def remove(self, job: Job) -> None:
        """Take back a request.  :raises ValueError: it does not wait."""
        self.requests.remove(job)
