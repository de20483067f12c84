"""Remembers for a moment that the store is away, so that a dead store costs a request nothing.

Closed while the store answers.  A failure opens it for ``pause`` seconds: every call fails at once
with the same cause.  Then one caller is let through to try, and the others keep failing until it
has an answer.  Not locked: a race lets a second caller try, which costs that caller its wait.
"""

from collections.abc import Callable


class Circuit:
    """See the head of this file.

    :param pause: seconds between two tries.
    :param clock: monotonic seconds.
    """

    def __init__(self, pause: float, clock: Callable[[], float]) -> None:
        self._pause = pause
        self._clock = clock
        self._next_try = 0.0
        self.cause: str | None = None
        """Why it is open, None while it is closed."""

    def allows(self) -> bool:
        """True if the caller may use the store now; it then reports ``open`` or ``close``."""
        if self.cause is None:
            return True
        now = self._clock()
        if now < self._next_try:
            return False
        self._next_try = now + self._pause
        return True

    def open(self, cause: str) -> None:
        """The store did not answer."""
        self.cause = cause
        self._next_try = self._clock() + self._pause

    def close(self) -> None:
        """The store answered."""
        self.cause = None
